"""Answering only when sure: coverage against accuracy, a threshold that promises a precision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llmembed.evaluation.bootstrap import Interval

UNKNOWN_LABEL = -1

WANTED_CONFIDENCE = 0.95


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
    """The least confidence that is answered, None where no threshold promises the precision.

    ``coverage`` and ``precision`` are those of the texts it was chosen on, ``lower_bound`` the
    precision that they promise with ``wanted_confidence``; see ``choose_threshold``. Where
    unattainable they are those of the first threshold that was tried, and ``reason`` says why.
    ``wanted_confidence`` is None of a threshold that an earlier version chose, by the precision on
    validation alone.
    """

    wanted_precision: float
    value: float | None
    coverage: float
    precision: float
    reason: str | None = None
    wanted_confidence: float | None = None
    lower_bound: float | None = None

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
    wanted_confidence: float = WANTED_CONFIDENCE,
) -> Threshold:
    """The threshold of the greatest coverage whose answers can be promised to be right
    ``wanted_precision`` of the time, on N validation texts, (N,) each; an unreadable answer has
    confidence 0 and is wrong.

    Method: fixed-sequence testing (Bauer 1991; Angelopoulos et al. 2021, "Learn then Test", arXiv
    2110.01052) of "the precision at this threshold is below the wanted one", by the exact binomial
    test that belongs to the lower bound of Clopper and Pearson (1934). Thresholds are tried in
    falling order, from the first that as many texts reach as a promise needs (``fewest_texts``),
    until the first whose bound lies below ``wanted_precision``; the last one before it is chosen.
    In at most 1 - ``wanted_confidence`` of all drawings of the validation texts is the true
    precision at the chosen threshold below the wanted one, however many thresholds are tried, where
    texts of less confidence are not right more often.

    The promise is for texts of the same kind as the validation texts, drawn independently of all
    that the classifier learned. It does not cover what the validation texts already served: early
    stopping, a temperature, hyperparameters, the choice among methods and seeds all lean to what
    did well on just these texts; nor does it cover data that drift. Test, which served none of
    that, says what came of it.
    """
    n = len(confidence)
    fewest = fewest_texts(wanted_precision, wanted_confidence)
    if fewest is None or n < fewest:
        few = (
            "no number of texts can promise a precision of 1"
            if fewest is None
            else f"{n} validation texts are too few to promise a precision of "
            f"{wanted_precision:g} with confidence {wanted_confidence:g}: at least {fewest} are "
            "needed, all answered right"
        )
        return Threshold(
            wanted_precision=wanted_precision,
            wanted_confidence=wanted_confidence,
            value=None,
            coverage=0.0,
            precision=0.0,
            reason=few,
        )
    curve = coverage_curve(confidence, correct)
    answered = np.round(np.array(curve.coverage) * n).astype(np.int64)
    right = np.round(np.array(curve.accuracy) * answered).astype(np.int64)
    tried = np.flatnonzero(answered >= fewest)
    holds = _chance(right[tried], answered[tried], wanted_precision) <= 1 - wanted_confidence
    held = int(np.argmin(holds)) if not holds.all() else len(holds)
    i = int(tried[max(held - 1, 0)])
    bound = lower_bound(int(right[i]), int(answered[i]), wanted_confidence)
    reason = (
        None
        if held
        else f"no threshold promises a precision of {wanted_precision:g} with confidence "
        f"{wanted_confidence:g}: of the {answered[i]} surest validation texts {right[i]} are "
        f"answered right, which promises {bound:.4f}"
    )
    return Threshold(
        wanted_precision=wanted_precision,
        wanted_confidence=wanted_confidence,
        value=curve.threshold[i] if held else None,
        coverage=curve.coverage[i],
        precision=curve.accuracy[i],
        lower_bound=bound,
        reason=reason,
    )


def fewest_texts(wanted_precision: float, wanted_confidence: float) -> int | None:
    """The fewest answers that, all being right, promise ``wanted_precision``; None for 1."""
    if wanted_precision >= 1:
        return None
    return max(1, math.ceil(math.log(1 - wanted_confidence) / math.log(wanted_precision) - 1e-9))


def lower_bound(right: int, answered: int, confidence: float) -> float:
    """Clopper and Pearson's one-sided bound of a share of which ``right`` of ``answered`` were."""
    from scipy.special import betaincinv

    return float(betaincinv(right, answered - right + 1, 1 - confidence)) if right else 0.0


def precision_interval(right: int, answered: int, level: float) -> Interval:
    """Clopper and Pearson's two-sided interval, ``answered`` at least 1."""
    each = 1 - (1 - level) / 2
    return Interval(
        low=lower_bound(right, answered, each),
        high=1 - lower_bound(answered - right, answered, each),
        level=level,
    )


def _chance(
    right: npt.NDArray[np.int64], answered: npt.NDArray[np.int64], precision: float
) -> npt.NDArray[np.float64]:
    """P(at least ``right`` of ``answered`` are right) at ``precision``, elementwise."""
    from scipy.special import betainc

    chance = betainc(np.maximum(right, 1), answered - right + 1, precision)
    return np.where(right > 0, chance, 1.0)


def withhold(
    labels: npt.NDArray[Any], confidence: npt.NDArray[np.float64], threshold: Threshold
) -> npt.NDArray[np.int64]:
    """``labels`` (N,) with ``UNKNOWN_LABEL`` where the confidence is below the threshold, and
    everywhere where the wanted precision can't be promised."""
    below = np.inf if threshold.value is None else threshold.value
    return np.where(confidence >= below, labels, UNKNOWN_LABEL).astype(np.int64)
