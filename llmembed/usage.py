"""What some work took: additive, measured and estimated apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


def _merged(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {key: a.get(key, 0.0) + b.get(key, 0.0) for key in sorted({*a, *b})}


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What some work took; usages add up.

    ``seconds`` are wall-clock seconds of the working processes, summed over processes, however
    many threads each has; ``core_seconds`` are those of processor time that all their threads took,
    which is what adds up over processes of different sizes (0 of a usage that an earlier version
    wrote).
    ``measured_joules`` come from a device's own counter, ``estimated_joules`` from a declared
    power; a device (``gpu:0``, ``cpu``) stands in one of the two. ``tokens`` were processed by a
    model of ours, ``prompt_tokens`` and ``completion_tokens`` by an endpoint in ``calls`` calls.
    """

    seconds: float = 0.0
    core_seconds: float = 0.0
    measured_joules: Mapping[str, float] = field(default_factory=dict)
    estimated_joules: Mapping[str, float] = field(default_factory=dict)
    tokens: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            seconds=self.seconds + other.seconds,
            core_seconds=self.core_seconds + other.core_seconds,
            measured_joules=_merged(self.measured_joules, other.measured_joules),
            estimated_joules=_merged(self.estimated_joules, other.estimated_joules),
            tokens=self.tokens + other.tokens,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            calls=self.calls + other.calls,
        )

    def scaled(self, share: float) -> Usage:
        """This usage times ``share``, counts rounded: a part's usage shared out by tokens."""
        return Usage(
            seconds=self.seconds * share,
            core_seconds=self.core_seconds * share,
            measured_joules={k: v * share for k, v in self.measured_joules.items()},
            estimated_joules={k: v * share for k, v in self.estimated_joules.items()},
            tokens=round(self.tokens * share),
            prompt_tokens=round(self.prompt_tokens * share),
            completion_tokens=round(self.completion_tokens * share),
            calls=round(self.calls * share),
        )

    @property
    def energy_joules(self) -> float:
        """Measured and estimated joules together; see ``energy_is_estimated``."""
        return sum(self.measured_joules.values()) + sum(self.estimated_joules.values())

    @property
    def energy_is_estimated(self) -> bool:
        """Whether any part of ``energy_joules`` is an estimate."""
        return sum(self.estimated_joules.values()) > 0

    def to_json(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "core_seconds": self.core_seconds,
            "measured_joules": dict(self.measured_joules),
            "estimated_joules": dict(self.estimated_joules),
            "tokens": self.tokens,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "calls": self.calls,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Usage:
        return cls(**data)
