"""Answering only when sure: coverage against accuracy, and a threshold for a wanted precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

UNKNOWN_LABEL = -1

MIN_ANSWERED = 20
"""Fewer answers on validation say too little about a precision."""


@dataclass(frozen=True, kw_only=True)
class CoverageCurve:
    """What is answered when only confidences of ``threshold`` and above are, rising coverage."""

    threshold: tuple[float, ...]
    coverage: tuple[float, ...]
    accuracy: tuple[float, ...]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CoverageCurve:
        return cls(**{key: tuple(data[key]) for key in ("threshold", "coverage", "accuracy")})

    def thinned(self, points: int = 101) -> CoverageCurve:
        """At most ``points`` of its points, spread evenly over coverage, the last one kept."""
        if len(self.coverage) <= points:
            return self
        wanted = np.linspace(self.coverage[0], self.coverage[-1], points)
        rows = np.unique(np.searchsorted(self.coverage, wanted))
        return CoverageCurve(
            threshold=tuple(self.threshold[i] for i in rows),
            coverage=tuple(self.coverage[i] for i in rows),
            accuracy=tuple(self.accuracy[i] for i in rows),
        )


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """The least confidence that is answered, None where no threshold reaches the precision.

    ``coverage`` and ``precision`` are those of the texts it was chosen on; where unattainable,
    those of the best precision that enough answers reached, and ``reason`` says so.
    """

    wanted_precision: float
    value: float | None
    coverage: float
    precision: float
    reason: str | None = None

    @property
    def attainable(self) -> bool:
        return self.value is not None


def coverage_curve(
    confidence: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]
) -> CoverageCurve:
    """One point for each distinct confidence: equal ones are answered together or not at all."""
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order]
    last = np.flatnonzero(np.append(np.diff(sorted_confidence) != 0, True)[: len(order)])
    right = np.cumsum(correct[order])
    n = len(order)
    return CoverageCurve(
        threshold=tuple(float(sorted_confidence[i]) for i in last),
        coverage=tuple(float((i + 1) / n) for i in last),
        accuracy=tuple(float(right[i] / (i + 1)) for i in last),
    )


def choose_threshold(
    confidence: npt.NDArray[np.float64],
    correct: npt.NDArray[np.bool_],
    wanted_precision: float,
    *,
    min_answered: int = MIN_ANSWERED,
) -> Threshold:
    """The threshold of the greatest coverage whose answers are right ``wanted_precision`` of the
    time, on validation texts (N,); an unreadable answer has confidence 0 and is wrong."""
    curve = coverage_curve(confidence, correct)
    n = len(confidence)
    coverage, accuracy = np.array(curve.coverage), np.array(curve.accuracy)
    enough = np.flatnonzero(np.round(coverage * n) >= min_answered)
    reached = enough[accuracy[enough] >= wanted_precision]
    if len(reached):
        i = int(reached[-1])
        return Threshold(
            wanted_precision=wanted_precision,
            value=curve.threshold[i],
            coverage=curve.coverage[i],
            precision=curve.accuracy[i],
        )
    if not len(enough):
        reason = f"{n} validation texts are fewer than the {min_answered} answers needed"
        return Threshold(
            wanted_precision=wanted_precision,
            value=None,
            coverage=0.0,
            precision=0.0,
            reason=reason,
        )
    i = int(enough[np.argmax(accuracy[enough])])
    return Threshold(
        wanted_precision=wanted_precision,
        value=None,
        coverage=curve.coverage[i],
        precision=curve.accuracy[i],
        reason=(
            f"no threshold reaches precision {wanted_precision:g} on validation; the best with at "
            f"least {min_answered} answers is {curve.accuracy[i]:.4f}"
        ),
    )


def withhold(
    labels: npt.NDArray[Any], confidence: npt.NDArray[np.float64], threshold: Threshold
) -> npt.NDArray[np.int64]:
    """``labels`` (N,) with ``UNKNOWN_LABEL`` where the confidence is below the threshold, and
    everywhere where the wanted precision is unattainable."""
    below = np.inf if threshold.value is None else threshold.value
    return np.where(confidence >= below, labels, UNKNOWN_LABEL).astype(np.int64)
