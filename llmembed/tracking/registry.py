"""Registered classifiers: versions of a name, and which of them is the champion."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from filelock import FileLock

from llmembed.contract import Task
from llmembed.errors import ConfigError, ModelError
from llmembed.permissions import shown
from llmembed.tracking.connection import is_database
from llmembed.tracking.privacy import masked
from llmembed.tracking.pyfunc import LOADER, log_classifier

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from llmembed.tracking.run import Run, Tracked
    from llmembed.tracking.runs import Tracking

Alias = Literal["champion", "challenger"]
CHAMPION: Alias = "champion"
_SCORE, _METRIC, _DIGEST = "llmembed.validation_score", "llmembed.metric", "llmembed.digest"
_METHOD = "llmembed.method"
_STORES = ("s3", "gs")
"""Stores whose host is this machine's setting; in other addresses a version would choose it."""


@dataclass(frozen=True, kw_only=True)
class Registered:
    """One version of a registered classifier. ``reason`` says why it is, or is not, champion;
    it is empty for one that was looked up."""

    name: str
    version: int
    alias: Alias | None
    score: float | None
    metric: str | None
    digest: str | None
    method: str | None
    run_id: str | None
    reason: str = ""

    @property
    def uri(self) -> str:
        """What ``mlflow.pyfunc.load_model`` takes, for exactly this version."""
        return f"models:/{self.name}/{self.version}"


def register(
    run: Run,
    folder: Path,
    *,
    name: str,
    tasks: Sequence[Task],
    validation_score: float,
    metric: str,
    digest: str,
    method: str = "",
    higher_is_better: bool = True,
    force: bool = False,
    loader: str = LOADER,
    examples: Sequence[str] = ("a text to classify",),
    metadata: Mapping[str, Any] | None = None,
) -> Registered:
    """Log the classifier saved in ``folder`` under ``run`` and register it as a version of
    ``name``.

    It becomes ``champion`` when there is none, when its ``validation_score`` is strictly better
    than the champion's in the same ``metric`` on data with the same ``digest``, or by ``force``;
    otherwise it becomes ``challenger``. Registrations on one machine take turns; of two at once
    on two machines the later one decides last. Raises ``ConfigError`` for a name MLflow refuses.
    """
    if not name or re.search(r"[/:]", name):
        raise ConfigError(f"A registered model's name holds no '/' or ':', unlike {name!r}.")
    tracking = run.tracking
    described = {"method": method, "metric": metric, "validation_score": validation_score}
    logged = log_classifier(
        run,
        folder,
        tasks=tasks,
        loader=loader,
        examples=examples,
        metadata={**described, "digest": digest, **(metadata or {})},
    )
    client = tracking.client
    with _one_at_a_time(tracking.uri, name):
        _ensure_name(tracking, name)
        made = client.create_model_version(
            name,
            # Over a database MLflow would look models:/ID up at the whole process's address.
            source=logged.location if is_database(tracking.uri) else logged.uri,
            run_id=run.id,
            model_id=logged.model_id,
            tags={
                _SCORE: repr(float(validation_score)),
                _METRIC: metric,
                _DIGEST: digest,
                _METHOD: method,
            },
        )
        alias, reason = _decide(
            champion(tracking, name),
            score=float(validation_score),
            metric=metric,
            digest=digest,
            higher_is_better=higher_is_better,
            force=force,
        )
        client.set_registered_model_alias(name, alias, made.version)
    client.update_model_version(name, made.version, description=f"{alias}: {reason}")
    run.tags({"llmembed.registered": f"{name}/{made.version}", "llmembed.alias": alias})
    return Registered(
        name=name,
        version=int(made.version),
        alias=alias,
        score=float(validation_score),
        metric=metric,
        digest=digest,
        method=method,
        run_id=run.id,
        reason=reason,
    )


def _decide(
    holder: Registered | None,
    *,
    score: float,
    metric: str,
    digest: str,
    higher_is_better: bool,
    force: bool,
) -> tuple[Alias, str]:
    """Which alias a new version gets, and the sentence that says why."""
    if force:
        return "champion", f"made champion by request, {metric} {score:.4f} on validation"
    if not math.isfinite(score):
        return "challenger", f"its {metric} on validation is {score}, which beats nothing"
    if holder is None:
        return "champion", f"the first one, {metric} {score:.4f} on validation"
    who = f"version {holder.version}"
    if holder.score is None or holder.metric is None or holder.digest is None:
        return "challenger", f"the champion, {who}, carries no validation score to compare with"
    if holder.digest != digest:
        return "challenger", (
            f"the champion, {who}, was validated on other data (digest {holder.digest[:12]}, "
            f"here {digest[:12]}), so the scores can't be compared"
        )
    if holder.metric != metric:
        return "challenger", (
            f"the champion, {who}, was chosen by {holder.metric}, not by {metric}, so the scores "
            "can't be compared"
        )
    better = score > holder.score if higher_is_better else score < holder.score
    if better or not math.isfinite(holder.score):
        return "champion", f"{metric} {score:.4f} against {holder.score:.4f} of {who} on validation"
    return "challenger", (
        f"{metric} {score:.4f} does not beat {holder.score:.4f} of the champion, {who}"
    )


def logged_json(tracking: Tracked, run_id: str | None, path: str) -> Any:
    """What a run keeps as the JSON file ``path``, None where it keeps none."""
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = tracking.client.download_artifacts(run_id, path, folder)
            return json.loads(Path(file).read_text(encoding="utf-8"))
    except (MlflowException, OSError, ValueError):
        return None


def champion(tracking: Tracked, name: str) -> Registered | None:
    """The version of ``name`` that is champion now, None where there is none."""
    return holder_of(tracking, name, CHAMPION)


def holder_of(tracking: Tracked, name: str, alias: Alias) -> Registered | None:
    """The version of ``name`` that ``alias`` points to now, None where there is none."""
    client = tracking.client
    from mlflow.exceptions import MlflowException

    try:
        return _registered(client.get_model_version_by_alias(name, alias), alias)
    except MlflowException as error:
        if _missing(error):
            return None
        raise


def download(tracking: Tracking, model_uri: str, to: Path | None = None) -> Path:
    """The folder ``Classifier.save`` wrote, of a model named by ``models:/NAME@ALIAS``,
    ``models:/NAME/VERSION`` or ``models:/MODEL_ID``; copied into ``to`` (a new temporary folder
    by default). Raises ``ModelError`` when there is no such model or it is not one of ours."""
    client = tracking.client
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    to = to or Path(tempfile.mkdtemp(prefix="llmembed-model-"))
    to.mkdir(parents=True, exist_ok=True)
    try:
        location = _location(client, model_uri)
        _check_host(location, tracking.uri, model_uri)
        path = download_artifacts(location, dst_path=str(to), tracking_uri=tracking.uri)
    except (MlflowException, OSError) as error:
        raise ModelError(
            f"{model_uri} can't be had from {masked(tracking.uri)}: "
            f"{masked(str(error)).splitlines()[0]}"
        ) from None
    for folder in (Path(path), to):
        if (folder / "artifacts" / "classifier").is_dir():
            return folder / "artifacts" / "classifier"
    raise ModelError(f"{model_uri} is an MLflow model, but not a classifier of llmembed.")


def _location(client: MlflowClient, model_uri: str) -> str:
    """Where a model's files lie. MLflow's own resolving asks the address set for the whole
    process instead of ours."""
    found = re.fullmatch(
        r"models:/(?P<name>[^/@]+)(?:@(?P<alias>.+)|/(?P<version>\d+))?", model_uri
    )
    if found is None:
        raise ModelError(
            f"A model is named models:/NAME@ALIAS or models:/NAME/VERSION, not {model_uri!r}."
        )
    name = found["name"]
    if found["alias"]:
        version = client.get_model_version_by_alias(name, found["alias"])
    elif found["version"]:
        version = client.get_model_version(name, found["version"])
    else:
        return str(client.get_logged_model(name).artifact_location)
    if version.model_id:
        return str(client.get_logged_model(version.model_id).artifact_location)
    return str(client.get_model_version_download_uri(name, version.version))


def _check_host(location: str, uri: str, model_uri: str) -> None:
    """Raise ``ModelError`` where a version's files would be fetched from a host of its own choice:
    whoever may register one would choose what this machine calls. Object stores are found by the
    settings of this machine."""
    place, registry = urlsplit(location), urlsplit(uri)
    own = place.scheme == "mlflow-artifacts" or place.scheme == registry.scheme
    same = own and (place.hostname, place.port) == (registry.hostname, registry.port)
    if not place.netloc or place.scheme in _STORES or same:
        return
    raise ModelError(
        f"the files of {model_uri} lie on a host other than the registry's, by "
        f"{shown(place.scheme)}, which is not asked: log the model anew"
    )


def _registered(version: ModelVersion, alias: Alias | None) -> Registered:
    tags = version.tags
    try:
        score = float(tags[_SCORE])
    except (KeyError, ValueError):
        score = None
    return Registered(
        name=version.name,
        version=int(version.version),
        alias=alias,
        score=score,
        metric=tags.get(_METRIC),
        digest=tags.get(_DIGEST),
        method=tags.get(_METHOD),
        run_id=version.run_id,
    )


def _ensure_name(tracking: Tracked, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        tracking.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _missing(error: Any) -> bool:
    # MLflow's SQL registry answers INVALID_PARAMETER_VALUE for an alias nobody holds.
    return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@contextmanager
def _one_at_a_time(uri: str, name: str) -> Iterator[None]:
    """Registrations of one name take turns on this machine: champion is read, compared and set
    by several calls, which MLflow can't make one."""
    digest = hashlib.sha256(f"{uri}\n{name}".encode()).hexdigest()[:16]
    with FileLock(Path(tempfile.gettempdir()) / f"llmembed-register-{os.getuid()}-{digest}.lock"):
        yield
