"""What a space's YAML file and the command line may say about a sweep."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import (
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from llmembed.errors import ConfigError
from llmembed.experiment import (
    BackboneSettings,
    Data,
    Experiment,
    PriceSettings,
    RuntimeSettings,
    TrackingSettings,
)
from llmembed.experiment.judging import Costs, Metric
from llmembed.heads.settings import head_config
from llmembed.methods import METHODS
from llmembed.methods.finetuned.settings import FinetunedSettings
from llmembed.methods.frozen.settings import FusedSettings
from llmembed.methods.settings import one_of_kinds
from llmembed.mistakes import sentence, suggest
from llmembed.settings import Settings
from tune.heads.dimensions import OF_HEAD, dimension
from tune.heads.space import DIMENSIONS, Configuration, Space
from tune.ledger import AnyConfiguration
from tune.models.space import (
    TrainingConfiguration,
    TrainingSpace,
    training_dimension,
    with_settings,
)
from tune.space import Dimension

READY = Path(__file__).parent / "ready"
Stopping = Literal["none", "asha", "median"]
OBJECTIVES = ("energy_joules", "latency_seconds", "parameters")
TRAINED = {
    kind: each
    for kind, each in METHODS.items()
    if issubclass(each, FinetunedSettings) and each.offered
}
"""Kind -> settings, of the methods that train a whole model."""
if TYPE_CHECKING:
    AnyTrained = FinetunedSettings
else:
    AnyTrained = one_of_kinds(TRAINED.values())


class SearchSettings(Settings):
    """How the space is walked and the winner found.

    ``seeds``: fits of each configuration while searching. The ``finalists`` best are then fitted
    up to ``final_seeds`` times, and the best mean names the winner. ``grouped``: configurations of
    equal shape are trained side by side in one trial (grid and random without stopping only).
    """

    algorithm: Literal["grid", "random", "tpe"] = "grid"
    trials: int = Field(32, ge=1, description="configurations that random and tpe try")
    stopping: Stopping = "none"
    second_objective: Literal["energy_joules", "latency_seconds", "parameters"] | None = None
    grouped: bool | Literal["auto"] = "auto"
    seeds: int = Field(1, ge=1, le=100)
    finalists: int = Field(3, ge=1)
    final_seeds: int = Field(3, ge=1, le=100)
    concurrent: int | Literal["auto"] = "auto"
    seed: int = 0

    @field_validator("concurrent")
    @classmethod
    def _at_least_one(cls, value: int | Literal["auto"]) -> int | Literal["auto"]:
        if value != "auto" and value < 1:
            raise ValueError(f"is {value}: expected auto, or how many trials at once, 1 or more")
        return value

    @property
    def trains_groups(self) -> bool:
        able = self.algorithm != "tpe" and self.stopping == "none"
        if self.grouped is True and not able:
            raise ConfigError(
                "search.grouped: groups are trained whole, so they go with grid or random and "
                f"without stopping, not with {self.algorithm} and {self.stopping}"
            )
        return able and self.grouped is not False


class Sweep(Settings):
    """A whole sweep: the data, the space, the search, and either ``views`` of frozen backbones,
    over which fusions and heads are searched, or a ``method`` that trains a whole model."""

    description: str = ""
    data: Data = Data()
    backbones: dict[str, BackboneSettings] = {"encoder": BackboneSettings(model="minilm")}
    views: dict[str, str] = {
        "L": "encoder mean:1-5",
        "B": "encoder pooler",
        "R": "encoder cls:1",
    }
    method: AnyTrained | None = None
    space: dict[str, Any]
    head: dict[str, Any] = Field({}, description="settings of every head, as in an experiment")
    metric: Metric = None
    costs: Costs = {}
    search: SearchSettings = SearchSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    tracking: TrackingSettings = TrackingSettings()
    prices: PriceSettings = PriceSettings()

    @field_validator("method", mode="before")
    @classmethod
    def _trained_whole(cls, method: Any) -> Any:
        if isinstance(method, Mapping) and method.get("kind") not in TRAINED:
            raise ValueError(
                f"kind is {method.get('kind')!r}: expected {' or '.join(TRAINED)}, which are "
                "trained whole; fusions and heads are searched without `method`"
            )
        return method

    @field_validator("space")
    @classmethod
    def _dimensions(cls, space: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "method" not in info.data:
            return space  # that it is wrong is said first
        method = info.data["method"]
        if method is not None:
            if not space:
                raise ValueError("names no dimension, such as learning_rate")
            for name, value in space.items():
                training_dimension(method, name, value)
            return space
        for name, value in space.items():
            if name not in DIMENSIONS:
                raise ValueError(f"unknown dimension {name!r}{suggest(name, DIMENSIONS)}")
            dimension(name, value)
        if "fusion" not in space:
            raise ValueError("fusion is missing: name one or several fusions")
        return space

    @field_validator("head")
    @classmethod
    def _head(cls, head: dict[str, Any]) -> dict[str, Any]:
        head_config(head)
        return head

    @model_validator(mode="after")
    def _one_kind(self) -> Sweep:
        for name in ("backbones", "views", "head") if self.method is not None else ():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} is for searches over fusions and heads; beside method, which is "
                    "trained whole, it has no effect: leave it out"
                )
        return self

    @property
    def trains_groups(self) -> bool:
        """Whether fits of equal shape are trained side by side in one trial."""
        if self.method is None:
            return self.search.trains_groups
        if self.search.grouped is True:
            raise ConfigError("search.grouped: whole models are trained one by one, each by itself")
        return False

    def training_space(self) -> TrainingSpace:
        """Of ``method``."""
        assert self.method is not None
        named = {n: training_dimension(self.method, n, v) for n, v in self.space.items()}
        steps = self.method.training.get("max_steps") is not None
        return TrainingSpace(
            dimensions=named,
            kind=self.method.kind,
            max_steps=steps or self.method.training.get("recipe") == "paper-decoder",
        )

    def method_of(self, configuration: AnyConfiguration) -> FusedSettings | FinetunedSettings:
        """The settings of the method that ``configuration`` is."""
        if isinstance(configuration, TrainingConfiguration):
            return self.trained(configuration)
        return self.fused(configuration)

    def trained(self, configuration: TrainingConfiguration) -> FinetunedSettings:
        """``method`` as ``configuration`` has it."""
        assert self.method is not None
        return with_settings(self.method, dict(configuration.settings))

    def make_space(self, shapes: Mapping[str, tuple[int, int]]) -> Space:
        """``shapes``: view -> (L, D)."""
        head = head_config(self.head)
        fixed = {name: (getattr(head, name),) for name in OF_HEAD} | {"head": (head.kind,)}
        named: dict[str, Dimension] = {
            **fixed,
            **{name: dimension(name, value) for name, value in self.space.items()},
        }
        for name in ("primary", "extras"):
            values = named.get(name, ())
            for value in values if isinstance(values, tuple) else ():
                for view in (value,) if name == "primary" else value:
                    if view not in shapes:
                        raise ConfigError(f"space.{name}: no view {view!r}{suggest(view, shapes)}")
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
        own = {name: getattr(c, name) for name in OF_HEAD}
        own["widths"] = None if c.widths is None else list(c.widths)
        kept = {key: value for key, value in own.items() if value is not None}
        return {**self.head, "kind": c.head, **kept}

    def experiment(self, methods: Mapping[str, Any]) -> Experiment:
        """The experiment that fits ``methods`` on this sweep's data."""
        return Experiment(
            description=self.description,
            data=self.data,
            backbones=self.backbones,
            views=self.views,
            methods=dict(methods),
            metric=self.metric,
            costs=self.costs,
            seeds=self.search.final_seeds,
            runtime=self.runtime,
            tracking=self.tracking,
            prices=self.prices,
        )


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
        raise ConfigError(f"no space {space!r}{suggest(space, known)}, or give a YAML file")
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
        raise ConfigError(f"{origin}: {sentence(error, _known, TRAINED)}") from None


def _known(place: Sequence[str]) -> Collection[str]:
    """The keys at ``place``."""
    if place[:1] == ["method"]:
        return list(TRAINED[place[1]].model_fields)
    inner: Any = Sweep
    for part in place:
        field = getattr(inner, "model_fields", {}).get(part)
        inner = field.annotation if field else None
    return list(getattr(inner, "model_fields", ()))


def _put(content: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
        if not isinstance(content, dict):
            raise ConfigError(f"{key}: {parent} is a value, not a group of settings")
    content[last] = value
