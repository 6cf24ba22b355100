"""Bootstrap confidence interval of a task's primary metric, texts drawn with replacement.

What is a ratio of sums over texts is taken over all draws at once; other metrics are computed anew
of each draw.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from llmembed.contract import Prediction, Task
from llmembed.metrics import metric_of, needs_scores, sign_of
from llmembed.metrics.counts import Counts, of_counts
from llmembed.metrics.measuring import by_text, counts_of_labels, readable, value
from llmembed.metrics.slots import counts_by_text, slot_counts

_DRAWS_AT_ONCE = 4_000_000
"""Indices drawn at a time: 32 MB."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Percentile interval: the metric over texts drawn anew lies in it ``level`` of the time."""

    low: float
    high: float
    level: float = 0.95


_DRAWS_BY_SCORES = 200
"""Draws of what sorts all texts anew each time."""

Parts = tuple[npt.NDArray[Any], npt.NDArray[np.int64]]


def primary_parts(task: Task, truth: npt.NDArray[Any], prediction: Prediction) -> Parts | None:
    """Numerator and denominator of the primary metric for each text, (N,): the figure is the ratio
    of their sums, so it can be taken over any draw of texts. None of a metric that is no ratio."""
    metric = metric_of(task)
    if metric == "accuracy":
        right = (readable(prediction) == truth).astype(np.int64)
        return right, np.ones_like(right)
    if metric == "micro_f1":
        answers = np.asarray(prediction.labels, dtype=bool) & ~prediction.invalid[:, None]
        truth = np.asarray(truth, dtype=bool)
        both = (answers & truth).sum(axis=1)
        return 2 * both, answers.sum(axis=1) + truth.sum(axis=1)
    if metric == "slot_f1":
        assert prediction.offsets is not None, "a prediction of word labels has offsets"
        counts = slot_counts(task.classes, truth, prediction.labels, prediction.offsets)
        return 2 * counts.right_by_text, counts.answered_by_text + counts.support_by_text
    means = by_text(metric, task, truth, prediction)
    if means is None:
        return None
    if task.kind == "tokens":  # one value a word
        assert prediction.offsets is not None, "a prediction of word labels has offsets"
        ends = np.concatenate([[0.0], means.cumsum()])[prediction.offsets]
        return np.diff(ends), np.diff(prediction.offsets)
    return means, np.ones(len(means), dtype=np.int64)


def bootstrap_interval(
    task: Task,
    truth: npt.NDArray[Any],
    prediction: Prediction,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of the primary metric's value (see ``Scores.value``) from ``resamples`` draws of N
    texts, of metrics by scores from at most 200; needs one text."""
    values = _draws(task, truth, prediction, resamples, seed)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(low=float(low), high=float(high), level=level)


def standard_error(task: Task, truth: npt.NDArray[Any], prediction: Prediction) -> float:
    """Of the primary metric's value: from 200 draws, of an accuracy in closed form. Never less than
    that of a share as Agresti and Coull (1998) count it, with two texts right and two wrong added,
    so that a handful of texts, all of them right, is not certain."""
    count = len(prediction.invalid)
    if metric_of(task) == "accuracy":
        return _share_error(float((readable(prediction) == truth).mean()), count)
    drawn = _draws(task, truth, prediction, _DRAWS_BY_SCORES, 0)
    error = float(drawn.std(ddof=1))
    middle = float(drawn.mean())
    return max(error, _share_error(middle, count)) if 0.95 <= middle <= 1 else error


def _share_error(share: float, count: int) -> float:
    adjusted = (share * count + 2) / (count + 4)
    return float(np.sqrt(adjusted * (1 - adjusted) / (count + 4)))


def _draws(
    task: Task, truth: npt.NDArray[Any], prediction: Prediction, resamples: int, seed: int
) -> npt.NDArray[np.float64]:
    """The value over texts drawn with replacement, again and again."""
    parts = primary_parts(task, truth, prediction)
    metric = metric_of(task)
    n = len(prediction.invalid)
    generator = np.random.default_rng(seed)
    if parts is None:
        draws = min(resamples, _DRAWS_BY_SCORES) if needs_scores(metric) else resamples
        of_rows = _anew(metric, task, truth, prediction)
        return np.array([of_rows(generator.integers(n, size=n)) for _ in range(draws)])
    numerator, denominator = parts
    values = np.empty(resamples)
    step = max(1, _DRAWS_AT_ONCE // n)
    for start in range(0, resamples, step):
        end = min(start + step, resamples)
        rows = generator.integers(n, size=(end - start, n))
        below = denominator[rows].sum(axis=1)
        drawn = numerator[rows].sum(axis=1) / np.maximum(below, 1)
        values[start:end] = sign_of(metric) * drawn
    return values


def _anew(
    metric: str, task: Task, truth: npt.NDArray[Any], prediction: Prediction
) -> Callable[[npt.NDArray[np.int64]], float]:
    """The value over the texts at given rows."""
    if needs_scores(metric):
        scores = prediction.scores

        def by_scores(rows: npt.NDArray[np.int64]) -> float:
            drawn = replace(
                prediction,
                labels=prediction.labels[rows],
                scores=None if scores is None else scores[rows],
                invalid=prediction.invalid[rows],
            )
            return value(task, truth[rows], drawn)

        return by_scores
    if task.kind == "single":
        labels = readable(prediction)
        return lambda rows: of_counts(
            metric, counts_of_labels(truth[rows], labels[rows], len(task.classes))
        )
    if task.kind == "multi":
        said = np.asarray(prediction.labels, dtype=bool) & ~prediction.invalid[:, None]
        true = np.asarray(truth, dtype=bool)
        each = np.stack([said & true, said, true])
    else:
        assert prediction.offsets is not None, "a prediction of word labels has offsets"
        each = counts_by_text(task.classes, truth, prediction.labels, prediction.offsets)

    def by_counts(rows: npt.NDArray[np.int64]) -> float:
        right, answered, support = (part[rows].sum(axis=0) for part in each)
        counted = Counts(right=right, answered=answered, support=support, total=len(rows))
        return of_counts(metric, counted)

    return by_counts
