"""Bootstrap confidence interval of a task's primary metric, texts drawn with replacement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llmembed.contract import Prediction, Task
from llmembed.evaluation.metrics import readable
from llmembed.evaluation.slots import slot_counts

_DRAWS_AT_ONCE = 4_000_000
"""Indices drawn at a time: 32 MB."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Percentile interval: the metric over texts drawn anew lies in it ``level`` of the time."""

    low: float
    high: float
    level: float = 0.95


def primary_parts(
    task: Task, truth: npt.NDArray[Any], prediction: Prediction
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Numerator and denominator of the primary metric for each text, int64 (N,): the metric is
    the ratio of their sums, so it can be taken over any draw of texts."""
    if task.kind == "single":
        right = (readable(prediction) == truth).astype(np.int64)
        return right, np.ones_like(right)
    if task.kind == "multi":
        answers = np.asarray(prediction.labels, dtype=bool) & ~prediction.invalid[:, None]
        truth = np.asarray(truth, dtype=bool)
        both = (answers & truth).sum(axis=1)
        return 2 * both, answers.sum(axis=1) + truth.sum(axis=1)
    assert prediction.offsets is not None, "a prediction of word labels has offsets"
    counts = slot_counts(task.classes, truth, prediction.labels, prediction.offsets)
    return 2 * counts.right_by_text, counts.answered_by_text + counts.support_by_text


def bootstrap_interval(
    task: Task,
    truth: npt.NDArray[Any],
    prediction: Prediction,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of the primary metric from ``resamples`` draws of N texts; needs one text."""
    values = _drawn(*primary_parts(task, truth, prediction), resamples, seed)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high), level=level)


def standard_error(task: Task, truth: npt.NDArray[Any], prediction: Prediction) -> float:
    """Of the primary metric: in closed form of a share, else from 200 draws of N texts."""
    numerator, denominator = primary_parts(task, truth, prediction)
    if task.kind == "single":
        share = float(numerator.mean())
        return float(np.sqrt(share * (1 - share) / len(numerator)))
    return float(_drawn(numerator, denominator, 200, 0).std(ddof=1))


def _drawn(
    numerator: npt.NDArray[np.int64], denominator: npt.NDArray[np.int64], resamples: int, seed: int
) -> npt.NDArray[np.float64]:
    """The ratio of the sums over texts drawn with replacement, (resamples,)."""
    n = len(numerator)
    generator = np.random.default_rng(seed)
    values = np.empty(resamples)
    step = max(1, _DRAWS_AT_ONCE // n)
    for start in range(0, resamples, step):
        end = min(start + step, resamples)
        rows = generator.integers(n, size=(end - start, n))
        below = denominator[rows].sum(axis=1)
        values[start:end] = numerator[rows].sum(axis=1) / np.maximum(below, 1)
    return values
