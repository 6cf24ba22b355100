"""What is served, where and within which limits: pydantic models, unknown keys refused."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from llmembed.errors import ConfigError
from llmembed.mistakes import sentence
from llmembed.permissions import Allowed

GIB = 2**30


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(_Settings):
    """What one request, and the queue of one replica, may hold."""

    request_bytes: int = Field(2 * 2**20, ge=1024, description="of a request's body; else 413")
    texts: int = Field(256, ge=1, le=65_536, description="in a request; else 413")
    tokens_per_text: int = Field(8192, ge=16, description="cut or not; else 422")
    queued_tokens: int = Field(131_072, ge=1, description="waiting in a replica; else 429")
    seconds: float = Field(30.0, gt=0, description="for one request; else 504")


class Batching(_Settings):
    """How requests share a forward pass: as many as wait, up to ``tokens``."""

    tokens: int | None = Field(None, ge=1, description="default: 4096 on a CPU, 32768 on a GPU")
    wait_seconds: float = Field(0.0, ge=0, le=1, description="an idle model waits for company")


class Scaling(_Settings):
    """Replicas of a deployment; between the two numbers Ray Serve scales by ongoing requests."""

    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(1, ge=1)
    target_ongoing_requests: float = Field(16.0, gt=0)
    max_ongoing_requests: int = Field(1024, ge=1, description="in one replica at once")
    cpus: float = Field(1.0, ge=0, description="that Ray sets aside for a replica")
    gpus: float = Field(0.0, ge=0)
    threads: int | None = Field(None, ge=1, description="of torch; default: cores per replica")

    @model_validator(mode="after")
    def _ordered(self) -> Scaling:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas={self.min_replicas} is more than max_replicas={self.max_replicas}"
            )
        return self


class Challenger(_Settings):
    """What the version called ``challenger`` sees. ``shadow``: a copy of requests, answers only
    compared; ``split``: that share of requests is answered by it."""

    mode: Literal["off", "shadow", "split"] = "off"
    share: float = Field(1.0, ge=0, le=1)
    queue: int = Field(64, ge=1, description="requests waiting for the shadow; more are skipped")


class Allow(_Settings):
    """What every model that is served, and every version that a request names, may do besides
    computing with its weights."""

    endpoints: list[str] = Field(
        [], description="URL, URL=VARIABLE that holds its key, or URL=none: what may be asked"
    )
    hub: bool = Field(False, description="fetch models that are not in the hub's cache")
    remote_code: bool = Field(False, description="run the Python code of a backbone")

    @field_validator("endpoints", mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        return given.replace(",", " ").split() if isinstance(given, str) else given

    @model_validator(mode="after")
    def _readable(self) -> Allow:
        self.allowed()
        return self

    def allowed(self) -> Allowed:
        return Allowed(
            remote_code=self.remote_code,
            hub=self.hub,
            endpoints=tuple(self.endpoints),
            by="serve",
        )


class ServeSettings(_Settings):
    """A serving application. The first of ``models`` answers where a request names none."""

    models: list[str] = Field(min_length=1, description="NAME, models:/NAME/3 or a folder")
    files: str = "llmembed-files"
    tracking_uri: str | None = None
    placement: Literal["auto", "inside", "apart"] = Field(
        "auto", description="of backbones: in the ingress's replicas or deployments of their own"
    )
    apart_above_bytes: int = Field(GIB, ge=0, description="of a backbone's weights, for `auto`")
    ingress: Scaling = Scaling()
    backbones: Scaling = Scaling()
    limits: Limits = Limits()
    batching: Batching = Batching()
    challenger: Challenger = Challenger()
    allow: Allow = Allow()
    other_versions: int = Field(2, ge=0, description="loaded on demand by a replica at once")
    refresh_seconds: float = Field(10.0, gt=0, description="between looks at the aliases")
    truncate: bool = Field(False, description="cut long texts where a request does not say")
    api_key_env: str | None = Field(
        "LLMEMBED_API_KEY",
        description="variable that holds the key where the application is built; a variable "
        "named here must be set",
    )
    api_key_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="of the key, instead of the variable"
    )
    revision: str = Field("", description="change it to have an unchanged config built again")
    budget_usd: float | None = Field(
        None, gt=0, description="of a replica since its start, for classifiers that pay by the call"
    )
    budget_tokens: int | None = Field(None, gt=0)
    cors_origins: list[str] = []
    feedback: bool = True
    feedback_bytes: int = Field(16 * 2**20, ge=1024, description="of a file before the next one")
    feedback_total_bytes: int = Field(
        GIB, ge=1024, description="stored by a replica since its start; else 507"
    )
    docs: bool = True

    @model_validator(mode="after")
    def _absolute(self) -> ServeSettings:
        # Replicas have a working directory of their own.
        if "://" not in self.files and not Path(self.files).is_absolute():
            object.__setattr__(self, "files", str(Path(self.files).resolve()))
        return self


def key_digest(settings: ServeSettings) -> bytes | None:
    """SHA-256 of the key that requests must bear, None where none is asked for. Replicas are
    handed this and never the key, so that one start decides for all of them.

    Raises ``ConfigError`` for an empty key, or a variable that was named and is not set."""
    if settings.api_key_sha256 is not None:
        return bytes.fromhex(settings.api_key_sha256)
    variable = settings.api_key_env
    if variable is None:
        return None
    if variable not in os.environ:
        if "api_key_env" in settings.model_fields_set:
            raise ConfigError(f"api_key_env: {variable} is not set here, where the key is read")
        return None
    key = os.environ[variable].strip()
    if not key:
        raise ConfigError(f"{variable} is set but empty: set a key, or unset it to ask for none")
    return hashlib.sha256(key.encode()).digest()


def load_settings(given: Mapping[str, Any]) -> ServeSettings:
    """Settings from a mapping whose keys may be dotted (``limits.texts=8``); ``model`` stands for
    ``models`` and may hold several names with commas between.

    Raises:
        ConfigError: a key is unknown or a value of the wrong kind; one sentence names it.
    """
    nested: dict[str, Any] = {}
    for key, value in given.items():
        place = nested
        *above, last = key.split(".")
        for name in above:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{key}: {name} is no group of settings")
        place[last] = value
    if "model" in nested:
        if "models" in nested:
            raise ConfigError("give either model or models, not both")
        nested["models"] = nested.pop("model")
    models = nested.get("models", [])
    if isinstance(models, str):
        models = [name.strip() for name in models.split(",") if name.strip()]
    if not isinstance(models, Sequence):
        raise ConfigError(
            f"models: give a name, or several with commas between, not {str(models)[:80]!r}"
        )
    nested["models"] = [_address(name) for name in models]
    try:
        return ServeSettings.model_validate(nested)
    except ValidationError as error:
        raise ConfigError(sentence(error, _known)) from None


def _known(place: Sequence[str]) -> Mapping[str, Any]:
    """The keys that stand below ``place``."""
    group: type[BaseModel] = ServeSettings
    for name in place:
        inner = group.model_fields[name].annotation if name in group.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return {}
        group = inner
    return group.model_fields


def _address(model: Any) -> Any:
    """A folder by its absolute path, since replicas run elsewhere; other names as they are."""
    if isinstance(model, str) and not model.startswith("models:/") and Path(model).is_dir():
        return str(Path(model).resolve())
    return model
