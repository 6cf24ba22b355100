"""What is searched: dimensions, configurations, and how a space is walked without doubles.

A dimension is one value, a list of choices or a range. A configuration says only what matters to
it: σ, K and the aligning maps where its fusion has a co-occurrence, widths and dropout where its
head has layers, extra views where its fusion reads them. Two ways of writing the same classifier
are one configuration, counted once.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from random import Random
from typing import Any, Generic, TypeVar

from llmembed.errors import ConfigError

Shapes = Mapping[str, tuple[int, int]]
"""View -> (L, D), of every view an experiment names."""
CO_ONLY = ("sigma", "width", "align", "align_dropout")
MLP_ONLY = ("widths", "dropout")


@dataclass(frozen=True, kw_only=True)
class Range:
    """``low`` to ``high``, in equal steps of the value or, with ``log``, of its logarithm.
    ``steps``: how many values a grid takes; ``whole``: integers only."""

    low: float
    high: float
    log: bool = False
    steps: int | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ConfigError(f"a range from {self.low} to {self.high} is empty")
        if self.log and self.low <= 0:
            raise ConfigError(f"a log range starts above 0, got {self.low}")

    def at(self, share: float) -> float:
        """The value at ``share`` (0 to 1) of the way."""
        if self.log:
            value = math.exp(math.log(self.low) + share * math.log(self.high / self.low))
        else:
            value = self.low + share * (self.high - self.low)
        return round(value) if self.whole else float(f"{value:.6g}")

    def grid(self, name: str) -> list[float]:
        if self.steps is None:
            raise ConfigError(f"space.{name}: a grid needs `steps` in this range")
        if self.steps == 1:
            return [self.at(0.5)]
        return [self.at(i / (self.steps - 1)) for i in range(self.steps)]


Dimension = Range | tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One classifier to try. ``depths``: which depths of the primary view enter, 1 the last;
    ``extras``: the other views. None: of no matter here, or the default (``width``, ``depths``).
    """

    fusion: str
    primary: str = "L"
    depths: tuple[int, ...] | None = None
    extras: tuple[str, ...] = ()
    sigma: float | None = None
    width: int | None = None
    align: str | None = None
    align_dropout: float | None = None
    lexical: int = 0
    head: str = "mlp"
    widths: tuple[int, ...] | None = (256,)
    dropout: float | None = 0.5
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    batch: int = 128
    class_weights: bool = False
    label_smoothing: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Configuration:
        own: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        return cls(**own)

    @property
    def id(self) -> str:
        """Ten hexadecimal digits; equal configurations have equal ones."""
        return id_of(self.to_json())

    @property
    def title(self) -> str:
        return self.fusion

    @property
    def run_name(self) -> str:
        return self.fusion + ("" if self.sigma is None else f" sigma {self.sigma:g}")

    def differing(self, others: Sequence[Configuration]) -> dict[str, Any]:
        """The settings in which ``others`` of its fusion differ: what names this one."""
        own_kind = [other for other in others if other.fusion == self.fusion]
        varied = {
            key
            for other in own_kind
            for key, value in asdict(other).items()
            if value != getattr(own_kind[0], key)
        }
        own = {key: value for key, value in asdict(self).items() if key in varied}
        return {key: value for key, value in own.items() if value not in (None, ())}


def id_of(told: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits, equal for equal settings."""
    text = json.dumps(told, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


DIMENSIONS = tuple(field.name for field in fields(Configuration))


C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class Walked(ABC, Generic[C]):
    """Dimensions by name, and the ways to walk them; ``C``: what a configuration is."""

    dimensions: Mapping[str, Dimension]

    @abstractmethod
    def canonical(self, point: Mapping[str, Any]) -> C | None:
        """The configuration at ``point``, None where there is none."""

    def order(self) -> list[str]:
        """The dimensions, those first that decide whether others matter."""
        return list(self.dimensions)

    def matters(self, name: str, point: Mapping[str, Any]) -> bool:
        """Whether dimension ``name`` has an effect beside what ``point`` says already."""
        return True

    def grid(self) -> list[C]:
        """Every distinct configuration, in the order of the dimensions as written."""
        axes = []
        for name, values in self.dimensions.items():
            chosen = values.grid(name) if isinstance(values, Range) else values
            axes.append([(name, value) for value in chosen])
        found: dict[C, None] = {}
        for point in itertools.product(*axes):
            made = self.canonical(dict(point))
            if made is not None:
                found[made] = None
        if not found:
            raise ConfigError("space: no configuration fits the views there are")
        return list(found)

    def random(self, count: int, seed: int) -> list[C]:
        """``count`` distinct configurations, fewer when the space has no more."""
        draw = Random(seed)
        found: dict[C, None] = {}
        for _ in range(200 * count):
            made = self.canonical(
                {name: self._drawn(values, draw) for name, values in self.dimensions.items()}
            )
            if made is not None:
                found[made] = None
            if len(found) == count:
                break
        return list(found)

    @staticmethod
    def _drawn(values: Dimension, draw: Random) -> Any:
        return values.at(draw.random()) if isinstance(values, Range) else draw.choice(values)

    def combinations(self) -> Iterator[str]:
        """The dimensions in words, for the terminal."""
        for name, values in self.dimensions.items():
            if isinstance(values, Range):
                yield f"{name} {values.low:g} to {values.high:g}{' (log)' if values.log else ''}"
            elif len(values) > 1:
                yield f"{name} {len(values)} choices"


@dataclass(frozen=True, kw_only=True)
class Space(Walked[Configuration]):
    """Fusions and heads over views of known ``shapes``."""

    shapes: Shapes

    def order(self) -> list[str]:
        return sorted(self.dimensions, key=lambda name: (name != "fusion", name != "head"))

    def matters(self, name: str, point: Mapping[str, Any]) -> bool:
        from llmembed.fusion import FUSIONS

        if name in CO_ONLY:
            fusion = point.get("fusion", "")
            return fusion in FUSIONS and FUSIONS[fusion].stacked is not None
        return not (name in MLP_ONLY and point.get("head") == "linear")

    def canonical(self, point: Mapping[str, Any]) -> Configuration | None:
        """The configuration at ``point``, without what does not matter to it; None where a view
        that its fusion reads does not enter."""
        from llmembed.fusion import FUSIONS

        given = dict(point)
        spec = FUSIONS[given["fusion"]]
        primary = given.setdefault("primary", "L")
        primaries = self.dimensions.get("primary", ("L",))
        assert not isinstance(primaries, Range)
        extras = tuple(given.get("extras", [v for v in self.shapes if v not in primaries]))
        named = {"L", *extras}
        if primary in extras or primary not in self.shapes or spec.missing(named):
            return None
        used = {*spec.extras(named), *spec.rows(named)}
        given["extras"] = tuple(view for view in extras if view in used)
        count, full = self.shapes[primary]
        depths = given.get("depths")
        if depths is not None:
            if max(depths) > count:
                return None
            if spec.depths == "last" and not spec.rows(named):
                depths = depths[:1]
            given["depths"] = None if depths == tuple(range(1, count + 1)) else tuple(depths)
        if len(depths or range(count)) == 1 and spec.depths in ("avg", "max", "concat"):
            given["fusion"] = _same_at_one_depth(given["fusion"])
        if spec.rows(named):
            narrowest = min(self.shapes[view][1] for view in spec.rows(named))
            width = given.get("width") or narrowest
            given["width"] = None if width == narrowest else width
            given.setdefault("sigma", 0.2)
            mapped = any(d != width for d in (full, *(self.shapes[v][1] for v in spec.rows(named))))
            given["align"] = given.get("align", "relu") if mapped else None
            drops = given["align"] == "relu"
            given["align_dropout"] = given.get("align_dropout", 0.5) if drops else None
        else:
            given.update(dict.fromkeys(CO_ONLY))
        if given.get("head", "mlp") == "linear":
            given.update(dict.fromkeys(MLP_ONLY))
        return Configuration(**given)


def _same_at_one_depth(fusion: str) -> str:
    """With one depth avg, max and concat are the same: the first of them names all."""
    from llmembed.fusion import FUSIONS

    spec = FUSIONS[fusion]
    for name, other in FUSIONS.items():
        if other.depths is not None and (
            (other.module, other.beside, other.stacked) == (spec.module, spec.beside, spec.stacked)
        ):
            return name
    return fusion
