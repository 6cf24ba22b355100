"""What a space's YAML file and the command line may say about a sweep."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from llmembed.errors import ConfigError
from llmembed.experiment import (
    BackboneSettings,
    Data,
    Experiment,
    FusedSettings,
    PriceSettings,
    RuntimeSettings,
    TrackingSettings,
    head_config,
)
from tune.spaces import DIMENSIONS, Configuration, Dimension, Range, Space

READY = Path(__file__).parent / "ready"
OBJECTIVES = ("energy_joules", "latency_seconds", "parameters")


class SearchSettings(BaseModel):
    """How the space is walked and the winner found.

    ``seeds``: fits of each configuration while searching. The ``finalists`` best are then fitted
    up to ``final_seeds`` times, and the best mean names the winner. ``grouped``: configurations of
    equal shape are trained side by side in one trial (grid and random without stopping only).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    algorithm: Literal["grid", "random", "tpe"] = "grid"
    trials: int = Field(32, ge=1, description="configurations that random and tpe try")
    stopping: Literal["none", "asha", "median"] = "none"
    second_objective: Literal["energy_joules", "latency_seconds", "parameters"] | None = None
    grouped: bool | Literal["auto"] = "auto"
    seeds: int = Field(1, ge=1, le=100)
    finalists: int = Field(3, ge=1)
    final_seeds: int = Field(3, ge=1, le=100)
    concurrent: int | Literal["auto"] = "auto"
    seed: int = 0

    @property
    def trains_groups(self) -> bool:
        able = self.algorithm != "tpe" and self.stopping == "none"
        if self.grouped is True and not able:
            raise ConfigError(
                "search.grouped: groups are trained whole, so they go with grid or random and "
                f"without stopping, not with {self.algorithm} and {self.stopping}"
            )
        return able and self.grouped is not False


class Sweep(BaseModel):
    """A whole sweep: the data, the views, the space, the search."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    data: Data = Data()
    backbones: dict[str, BackboneSettings] = {"encoder": BackboneSettings(model="minilm")}
    views: dict[str, str] = {
        "L": "encoder mean:1-5",
        "B": "encoder pooler",
        "R": "encoder cls:1",
    }
    space: dict[str, Any]
    head: dict[str, Any] = Field({}, description="settings of every head, as in an experiment")
    search: SearchSettings = SearchSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    tracking: TrackingSettings = TrackingSettings()
    prices: PriceSettings = PriceSettings()

    @field_validator("space")
    @classmethod
    def _dimensions(cls, space: dict[str, Any]) -> dict[str, Any]:
        for name, value in space.items():
            if name not in DIMENSIONS:
                raise ValueError(f"unknown dimension {name!r}{_suggest(name, DIMENSIONS)}")
            dimension(name, value)
        if "fusion" not in space:
            raise ValueError("fusion is missing: name one or several fusions")
        return space

    @field_validator("head")
    @classmethod
    def _head(cls, head: dict[str, Any]) -> dict[str, Any]:
        head_config(head)
        return head

    def make_space(self, shapes: Mapping[str, tuple[int, int]]) -> Space:
        """``shapes``: view -> (L, D)."""
        head = head_config(self.head)
        fixed = {name: (getattr(head, name),) for name in _OF_HEAD} | {"head": (head.kind,)}
        named: dict[str, Dimension] = {
            **fixed,
            **{name: dimension(name, value) for name, value in self.space.items()},
        }
        for name in ("primary", "extras"):
            values = named.get(name, ())
            for value in values if isinstance(values, tuple) else ():
                for view in (value,) if name == "primary" else value:
                    if view not in shapes:
                        raise ConfigError(f"space.{name}: no view {view!r}{_suggest(view, shapes)}")
        return Space(dimensions=named, shapes=shapes)

    def fused(self, configuration: Configuration) -> FusedSettings:
        """The settings of the ``fused`` method that ``configuration`` is."""
        c = configuration
        words = self.views[c.primary]
        if c.depths is not None:
            backbone, _, reads = words.partition(" ")
            pooling = reads.partition(":")[0].strip()
            words = f"{backbone} {pooling}:{','.join(map(str, c.depths))}"
        own: dict[str, Any] = {
            "sigma": c.sigma,
            "width": c.width,
            "align": c.align,
            "align_dropout": c.align_dropout,
        }
        return FusedSettings(
            kind="fused",
            fusion=c.fusion,
            views={"L": words, **{name: self.views[name] for name in c.extras}},
            lexical=c.lexical,
            head=self.head_of(c),
            **{key: value for key, value in own.items() if value is not None},
        )

    def head_of(self, c: Configuration) -> dict[str, Any]:
        """The head's settings under ``configuration``, as an experiment says them."""
        own = {name: getattr(c, name) for name in _OF_HEAD}
        own["widths"] = None if c.widths is None else list(c.widths)
        kept = {key: value for key, value in own.items() if value is not None}
        return {**self.head, "kind": c.head, **kept}

    def experiment(self, methods: Mapping[str, FusedSettings]) -> Experiment:
        """The experiment that fits ``methods`` on this sweep's data."""
        return Experiment(
            description=self.description,
            data=self.data,
            backbones=self.backbones,
            views=self.views,
            methods=dict(methods),
            seeds=self.search.final_seeds,
            runtime=self.runtime,
            tracking=self.tracking,
            prices=self.prices,
        )


def dimension(name: str, value: Any) -> Dimension:
    """One value, a list of choices, or ``{low, high, log, steps}``. Raises ``ConfigError``."""
    from llmembed.fusion import FUSIONS

    if isinstance(value, Mapping):
        known = ("low", "high", "log", "steps")
        for key in value:
            if key not in known:
                raise ConfigError(f"{name}: unknown key {key!r}{_suggest(key, known)}")
        if not {"low", "high"} <= set(value):
            raise ConfigError(f"{name}: a range needs low and high")
        if name not in _NUMBERS:
            raise ConfigError(f"{name}: expected a value or a list of choices, not a range")
        return Range(**value, whole=name in _WHOLE)
    choices = value if isinstance(value, list) else [value]
    if name in ("extras", "widths") and choices and not isinstance(choices[0], list):
        choices = [choices]  # one flat list is one choice
    if not choices:
        raise ConfigError(f"{name}: an empty list of choices")
    if name == "fusion":
        if choices == ["all"]:
            choices = list(FUSIONS)
        for fusion in choices:
            if fusion not in FUSIONS:
                raise ConfigError(f"fusion: unknown name {fusion!r}{_suggest(fusion, FUSIONS)}")
    return tuple(_choice(name, each) for each in choices)


_OF_HEAD = (
    "widths",
    "dropout",
    "learning_rate",
    "weight_decay",
    "batch",
    "class_weights",
    "label_smoothing",
)
_NUMBERS = {"sigma", "width", "align_dropout", "lexical", *_OF_HEAD} - {"widths", "class_weights"}
_WHOLE = {"width", "lexical", "batch"}
_LISTS = {"depths", "extras", "widths"}


def _choice(name: str, value: Any) -> Any:
    """One choice, checked by building what it is a setting of."""
    if name == "depths":
        value = _depths(value) if isinstance(value, (str, int)) else value
    if name in _LISTS:
        values = tuple(value) if isinstance(value, (list, tuple)) else None
        kind = str if name == "extras" else int
        if values is None or not all(type(each) is kind for each in values):
            raise ConfigError(f"{name}: expected a list, got {value!r}")
        return values
    if name in _NUMBERS and value is None and name == "width":
        return None
    if name in _NUMBERS and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise ConfigError(f"{name}: expected a number, got {value!r}")
    if name in _WHOLE and value != int(value):
        raise ConfigError(f"{name}: expected a whole number, got {value!r}")
    if name == "class_weights" and not isinstance(value, bool):
        raise ConfigError(f"{name}: expected true or false, got {value!r}")
    if name in ("dropout", "learning_rate", "weight_decay", "batch", "label_smoothing"):
        head_config({name: value})
    if name == "head":
        head_config({"kind": value})
    if name == "sigma" and not value > 0:
        raise ConfigError(f"sigma: expected a number above 0, got {value!r}")
    if name == "align" and value not in ("relu", "linear"):
        raise ConfigError(f"align: expected relu or linear, got {value!r}")
    return value


def _depths(text: str | int) -> tuple[int, ...]:
    from llmembed.backbones import parse_reads

    return tuple(read.depth for read in parse_reads(f"mean:{text}"))


def ready_spaces() -> dict[str, Path]:
    """The ready spaces by name."""
    return {path.stem: path for path in sorted(READY.glob("*.yaml"))}


def load_sweep(
    space: str, *, changes: Mapping[str, Any] | None = None, overrides: Sequence[str] = ()
) -> Sweep:
    """The sweep of a ready space's name or a YAML file, changed.

    ``changes``: dotted key -> value; ``overrides``: ``KEY=VALUE`` words, applied last. Raises
    ``ConfigError``.
    """
    known = ready_spaces()
    path = known.get(space, Path(space))
    if not path.is_file():
        raise ConfigError(f"no space {space!r}{_suggest(space, known)}, or give a YAML file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        words = [word.partition("=") for word in overrides]
        typed = {key: yaml.safe_load(text) for key, _, text in words}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{space}: can't be read as YAML: {' '.join(str(error).split())}"
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(f"{space}: expected `key: value` lines at the top")
    for key, value in {**(changes or {}), **typed}.items():
        _put(content, key, value)
    return sweep_from(content, space)


def sweep_from(content: Mapping[str, Any], origin: str) -> Sweep:
    """Raises ``ConfigError`` with one sentence that names the key."""
    try:
        return Sweep.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            inner: Any = Sweep
            for part in first["loc"][:-1]:
                field = getattr(inner, "model_fields", {}).get(part)
                inner = field.annotation if field else None
            names = getattr(inner, "model_fields", {})
            reason = f"unknown key{_suggest(str(first['loc'][-1]), names)}"
        else:
            reason = first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{origin}: {key}: {reason}") from None


def _put(content: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise ConfigError(f"{key}: {parent} is a value, not a group of settings")
    content[last] = value


def _suggest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(str(name), [str(key) for key in known], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"; known are {', '.join(map(str, known))}{hint}" if known else ""
