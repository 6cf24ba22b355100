"""What a YAML file and the command line may say, and the objects built from it.

An experiment names the data, the backbones, the views read from them, the methods to fit and where
to run. Unknown keys and bad values are answered by one sentence that names the key.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from llmembed.errors import ConfigError
from llmembed.heads import HeadConfig

RECIPES = Path(__file__).parent / "recipes"


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
    template: str | None = None
    trust_remote_code: bool = False


Penalties = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
"""Values of C, the inverse of the penalty; validation chooses."""


class LexicalSettings(_Settings):
    kind: Literal["lexical"]
    word_ngrams: int = Field(1, ge=1, le=3)
    inverse_penalties: Penalties = [1.0, 10.0, 100.0, 1000.0]


class ProbeSettings(_Settings):
    kind: Literal["probe"]
    view: str = Field("encoder mean:1", description="backbone and reads")
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

        return _one_of(name, FUSIONS)

    @field_validator("head")
    @classmethod
    def _head(cls, values: dict[str, Any]) -> dict[str, Any]:
        head_config(values)
        return values


MethodSettings = Annotated[
    LexicalSettings | ProbeSettings | FusedSettings, Field(discriminator="kind")
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
            raise ConfigError(f"unknown key {key!r}{_suggest(key, {'recipe': None, **known})}")
    if recipe not in ("ours", "paper"):
        raise ConfigError(f"unknown recipe {recipe!r}; known are ours, paper")
    base = HeadConfig.paper() if recipe == "paper" else HeadConfig()
    try:
        # pydantic reads 1e-3, which YAML takes for a word, and refuses 2.5 epochs.
        return TypeAdapter(HeadConfig).validate_python({**base.to_json(), **changes})
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from None


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


def recipes() -> dict[str, Path]:
    """The ready experiments by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def load_experiment(
    recipe: str,
    *,
    changes: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    only: Sequence[str] | None = None,
) -> Experiment:
    """The experiment of a recipe's name or a YAML file, changed.

    ``changes``: dotted key -> value. ``overrides``: ``KEY=VALUE`` words, values read as YAML,
    applied last. ``only``: keep these methods.

    Raises:
        ConfigError: unknown recipe, key or method, or a value of the wrong kind.
    """
    path = _find(recipe)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{recipe}: can't be read as YAML: {reason}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{recipe}: expected `key: value` lines at the top")
    for key, value in (changes or {}).items():
        _put(content, key, value)
    for word in overrides:
        key, _, text = word.partition("=")
        try:
            _put(content, key, yaml.safe_load(text))
        except yaml.YAMLError:
            raise ConfigError(f"{word}: the value can't be read as YAML") from None
    if only is not None:
        methods = content.get("methods") or {}
        for name in only:
            if name not in methods:
                raise ConfigError(f"no method {name!r} in {recipe}{_suggest(name, methods)}")
        content["methods"] = {name: methods[name] for name in only}
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{recipe}: {_sentence(error)}") from None
    if "backbones.encoder.model" in (changes or {}) and not _reads_encoder(experiment):
        raise ConfigError(
            f"--backbone: no view of {recipe} reads `encoder`; "
            f"set backbones.NAME.model for {' or '.join(experiment.backbones)}"
        )
    return experiment


def _reads_encoder(experiment: Experiment) -> bool:
    words = [*experiment.views.values()]
    for method in experiment.methods.values():
        words += [method.view] if isinstance(method, ProbeSettings) else []
        words += (method.views or {}).values() if isinstance(method, FusedSettings) else []
    return any(word.split()[:1] == ["encoder"] for word in words)


def _find(recipe: str) -> Path:
    known = recipes()
    if recipe in known:
        return known[recipe]
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(f"there is no file {recipe}")
        return path
    raise ConfigError(f"no recipe {recipe!r}{_suggest(recipe, known)}")


def _put(content: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        inner = content.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {parent} is a value, not a group of settings")
        content = inner
    content[last] = value


def _one_of(name: str, known: Mapping[str, Any]) -> str:
    if name not in known:
        raise ValueError(f"unknown name {name!r}{_suggest(name, known)}")
    return name


def _suggest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(name), [str(key) for key in known], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"; known are {', '.join(map(str, known))}{hint}"


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    kinds = ("lexical", "probe", "fused")
    place = [str(part) for part in first["loc"] if not str(part).startswith("function-")]
    # pydantic puts the kind of a method and the branch of a choice into the place; neither is a key
    if len(place) > 2 and place[0] == "methods" and place[2] in kinds:
        del place[2]
    key = ".".join(
        part for part in place if part not in ("int", "str", "list[str]", "literal['auto']")
    )
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key{_suggest(place[-1], _keys(place[:-1]))}"
    if first["type"] == "union_tag_invalid":
        return f"{key}.kind: unknown method {first['ctx']['tag']!r}; known are {', '.join(kinds)}"
    if first["type"] == "union_tag_not_found":
        return f"{key}.kind: missing; known are {', '.join(kinds)}"
    if first["type"] == "missing":
        return f"{key}: missing"
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":  # our own words name the value already
        return f"{key}: {reason}"
    return f"{key}: {reason[0].lower()}{reason[1:]}, got {first['input']!r}"


def _keys(place: Sequence[str]) -> Mapping[str, Any]:
    """The settings known at ``place``, for the hint of a misspelled key."""
    groups: dict[str, type[BaseModel]] = {
        "data": Data,
        "runtime": RuntimeSettings,
        "tracking": TrackingSettings,
        "prices": PriceSettings,
        "budget": BudgetSettings,
        "backbones": BackboneSettings,
    }
    if not place:
        return Experiment.model_fields
    if place[0] == "methods":
        return {
            **LexicalSettings.model_fields,
            **ProbeSettings.model_fields,
            **FusedSettings.model_fields,
        }
    return groups[place[0]].model_fields
