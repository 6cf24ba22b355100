"""The settings, as pydantic models: unknown keys are refused, values are checked.

An experiment names the data, the backbones, the views read from them, the methods to fit and where
to run. Unknown keys and bad values are answered by one sentence that names the key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from llmembed.errors import ConfigError
from llmembed.experiment.finetuning import DecoderSettings, EncoderSettings
from llmembed.experiment.mistakes import one_of, sentence, suggest
from llmembed.experiment.prompting import CarpSettings, GeneratorSettings, PromptSettings
from llmembed.heads import HeadConfig


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Settings):
    """Where labelled texts come from."""

    source: str | list[str] = Field("default", description="a benchmark, files, s3:// or hub id")
    test: str | list[str] | None = None
    valid: str | list[str] | None = None
    hub_config: str | None = Field(None, description="configuration of a data set of the hub")
    hub_revision: str | None = None
    options: dict[str, Any] = Field({}, description="of a benchmark, such as balanced for agnews")
    text_column: str = "text"
    labels: dict[str, str] | None = Field(None, description="task: column")
    kinds: dict[str, Literal["single", "multi", "tokens"]] = {}
    multi: bool = Field(False, description="every task may have several labels a text")
    separator: str = ","
    words_column: str | None = Field(None, description="words of each text, for BIO labels")
    tasks: list[str] | None = Field(None, description="only these tasks")
    feedback: str | None = Field(
        None, description="corrected labels: a served model's name, or their folder"
    )
    limit: int | None = Field(None, ge=10, description="use this many rows of each part")
    seed: int = 0
    valid_fraction: float = Field(0.1, gt=0, lt=1)
    test_fraction: float = Field(0.2, gt=0, lt=1)
    max_bad_fraction: float = Field(0.01, ge=0, le=1)


class BackboneSettings(_Settings):
    """A frozen model: preset, hub id or local folder."""

    model: str
    reads: str | None = Field(None, description="such as `mean:1-5 cls:1 pooler`")
    max_tokens: int | None = Field(None, ge=2)
    long_texts: Literal["cut", "head_tail", "windows"] | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    template: str | None = Field(None, description="what surrounds a text, `{text}` in it")
    prompt: str | None = Field(
        None, description="one of the model's own, such as query or document; or none"
    )
    normalise: bool | None = Field(None, description="vectors of length 1; null: as the model says")
    trust_remote_code: bool = False


Penalties = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
"""Values of C, the inverse of the penalty; validation chooses."""


class LexicalSettings(_Settings):
    kind: Literal["lexical"]
    word_ngrams: int = Field(1, ge=1, le=3)
    inverse_penalties: Penalties = [1.0, 10.0, 100.0, 1000.0]


class ProbeSettings(_Settings):
    kind: Literal["probe"]
    view: str = Field("encoder own", description="backbone and reads; own: as the model says")
    inverse_penalties: Penalties = [0.003, 0.03, 0.3]


class FusedSettings(_Settings):
    kind: Literal["fused"]
    fusion: str = "avg"
    views: dict[str, str] | None = Field(None, description="name: `backbone reads`")
    sigma: float = Field(0.2, gt=0)
    width: int | None = Field(None, ge=1, description="K, the width views are aligned to")
    align: Literal["relu", "linear"] = "relu"
    align_dropout: float = Field(0.5, ge=0, lt=1)
    lexical: int = Field(0, ge=0, description="width of the lexical view; 0: none")
    head: dict[str, Any] = {}

    @field_validator("fusion")
    @classmethod
    def _known(cls, name: str) -> str:
        from llmembed.fusion import FUSIONS

        return one_of(name, FUSIONS)

    @field_validator("head")
    @classmethod
    def _head(cls, values: dict[str, Any]) -> dict[str, Any]:
        head_config(values)
        return values


MethodSettings = Annotated[
    LexicalSettings
    | ProbeSettings
    | FusedSettings
    | EncoderSettings
    | DecoderSettings
    | PromptSettings
    | CarpSettings,
    Field(discriminator="kind"),
]


class RuntimeSettings(_Settings):
    """Where to run and where files go."""

    files: str = "llmembed-files"
    address: str | None = Field(None, description="a running Ray cluster; none: start one here")
    local: bool = False
    actors: int | tuple[int, int] | Literal["auto"] = Field(
        "auto", description="N, or [least, most]"
    )
    threads_per_actor: int | Literal["auto"] = "auto"
    gpus_per_actor: float | Literal["auto"] = "auto"


class TrackingSettings(_Settings):
    """MLflow: SQLite under ``files`` unless an address is given."""

    uri: str | None = None
    experiment: str | None = Field(None, description="default: the data set's name")
    register_as: str | None = Field(
        None, description="registered model; default: the data set's name"
    )
    promote: bool = Field(
        False, description="make the winner champion whatever the champion's score"
    )


class PriceSettings(_Settings):
    usd_per_kwh: float = Field(0.065, ge=0)
    usd_per_1000_prompt_tokens: float = Field(0.002, ge=0)
    usd_per_1000_completion_tokens: float = Field(0.002, ge=0)


class BudgetSettings(_Settings):
    """``compare`` starts no further method past these."""

    seconds: float | None = Field(None, gt=0)
    usd: float | None = Field(None, gt=0)


def head_config(values: Mapping[str, Any]) -> HeadConfig:
    """A head's settings: those of ``recipe`` (``ours`` or ``paper``), changed by the other keys."""
    changes = dict(values)
    recipe = changes.pop("recipe", "ours")
    known = {field.name: None for field in fields(HeadConfig) if field.name != "seed"}
    for key in changes:
        if key not in known:
            raise ConfigError(f"unknown key {key!r}{suggest(key, {'recipe': None, **known})}")
    if recipe not in ("ours", "paper"):
        raise ConfigError(f"unknown recipe {recipe!r}; known are ours, paper")
    base = HeadConfig.paper() if recipe == "paper" else HeadConfig()
    try:
        # pydantic reads 1e-3, which YAML takes for a word, and refuses 2.5 epochs.
        return TypeAdapter(HeadConfig).validate_python({**base.to_json(), **changes})
    except ValidationError as error:
        raise ConfigError(sentence(error)) from None


class Experiment(_Settings):
    """Everything one run of ``fit``, ``compare`` or ``embed`` needs to know."""

    description: str = ""
    data: Data = Data()
    backbones: dict[str, BackboneSettings] = {"encoder": BackboneSettings(model="minilm")}
    views: dict[str, str] = {
        "L": "encoder mean:1-5",
        "B": "encoder pooler",
        "R": "encoder cls:1",
    }
    generators: dict[str, GeneratorSettings] = {}
    methods: dict[str, MethodSettings]
    seeds: int = Field(3, ge=1, le=100)
    wanted_precision: float = Field(0.99, gt=0, le=1)
    runtime: RuntimeSettings = RuntimeSettings()
    tracking: TrackingSettings = TrackingSettings()
    prices: PriceSettings = PriceSettings()
    budget: BudgetSettings = BudgetSettings()

    @field_validator("methods")
    @classmethod
    def _some(cls, methods: dict[str, Any]) -> dict[str, Any]:
        if not methods:
            raise ValueError("names no method")
        return methods


def known_keys(place: Sequence[str]) -> Mapping[str, Any]:
    """The settings known at ``place``, for the hint of a misspelled key."""
    groups: dict[str, type[BaseModel]] = {
        "data": Data,
        "runtime": RuntimeSettings,
        "tracking": TrackingSettings,
        "prices": PriceSettings,
        "budget": BudgetSettings,
        "backbones": BackboneSettings,
        "generators": GeneratorSettings,
    }
    if not place:
        return Experiment.model_fields
    if place[0] == "methods":
        return {
            **LexicalSettings.model_fields,
            **ProbeSettings.model_fields,
            **FusedSettings.model_fields,
            **EncoderSettings.model_fields,
            **DecoderSettings.model_fields,
            **PromptSettings.model_fields,
            **CarpSettings.model_fields,
        }
    return groups[place[0]].model_fields
