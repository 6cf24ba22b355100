"""What is searched: dimensions, and how a space of them is walked without doubles.

A dimension is one value, a list of choices or a range. Two ways of writing the same configuration
are one, counted once.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, TypeVar

from llmembed.errors import ConfigError
from llmembed.mistakes import suggest


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


def id_of(told: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits, equal for equal settings."""
    text = json.dumps(told, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def range_of(
    name: str, value: Mapping[str, Any], *, numbers: Collection[str], whole: Collection[str]
) -> Range:
    """``{low, high, log, steps}``. ``numbers``: the dimensions that may have one. Raises
    ``ConfigError``."""
    known = ("low", "high", "log", "steps")
    for key in value:
        if key not in known:
            raise ConfigError(f"{name}: unknown key {key!r}{suggest(key, known)}")
    if not {"low", "high"} <= set(value):
        raise ConfigError(f"{name}: a range needs low and high")
    if name not in numbers:
        raise ConfigError(f"{name}: expected a value or a list of choices, not a range")
    steps = value.get("steps")
    if steps is not None and (type(steps) is not int or steps < 1):
        raise ConfigError(f"{name}: steps is {steps!r}: expected a whole number from 1 on")
    return Range(
        low=number(name, value["low"]),
        high=number(name, value["high"]),
        log=bool(value.get("log", False)),
        steps=steps,
        whole=name in whole,
    )


def number(name: str, value: Any) -> float:
    """``value`` where it is one, also 1e-5, which YAML takes for a word."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    elif isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ConfigError(f"{name}: expected a number, got {value!r}")
