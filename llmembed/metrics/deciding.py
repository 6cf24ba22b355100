"""Labels from scores: the largest, the least expected cost, or all that reach their thresholds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from llmembed.contract import Prediction, Task
from llmembed.metrics.measuring import value
from llmembed.metrics.names import PRIMARY, metric_of, needs_scores

ENOUGH = 10
"""Texts of a class on validation from which it has a threshold of its own."""
BOUNDS = (0.05, 0.95)
"""No threshold lies outside: of a rare class the best on validation may be next to nothing."""

Scores = npt.NDArray[np.floating[Any]]


def decided(task: Task, scores: Scores) -> npt.NDArray[Any]:
    """Labels from probabilities (N, C), as in ``Examples.labels``.

    ``multi``: every class whose score reaches its threshold, 1/2 unless the task says otherwise.
    Else the class of the largest score, or under the task's costs of the least expected cost, the
    first of equal ones.
    """
    if task.kind == "multi":
        least = 0.5 if task.thresholds is None else np.asarray(task.thresholds, dtype=np.float64)
        chosen: npt.NDArray[np.bool_] = scores >= least
        return chosen
    if task.costs is None or task.kind == "tokens":
        largest: npt.NDArray[np.int64] = scores.argmax(axis=1).astype(np.int64)
        return largest
    expected = scores.astype(np.float64) @ np.asarray(task.costs, dtype=np.float64)
    least_cost: npt.NDArray[np.int64] = expected.argmin(axis=1).astype(np.int64)
    return least_cost


def answered(task: Task, scores: npt.NDArray[np.float32]) -> Prediction:
    """The prediction that these scores are, all of them readable."""
    invalid = np.zeros(len(scores), dtype=bool)
    return Prediction(labels=decided(task, scores), scores=scores, invalid=invalid)


def plainly_decided(task: Task) -> bool:
    """Whether a task is judged by its kind's own metric and decided without costs."""
    return task.metric in (None, PRIMARY[task.kind]) and task.costs is None and not thresholds(task)


def can_collapse(task: Task) -> bool:
    """Whether one answer to everything says that a fit is of no use: not where what counts is how
    texts are ranked, nor under costs, where it may be the cheapest."""
    return not needs_scores(metric_of(task)) and task.costs is None


def thresholds(task: Task) -> bool:
    """Whether thresholds are chosen for ``task``: of several labels, to be judged by an F1."""
    return task.kind == "multi" and task.metric in ("micro_f1", "macro_f1", "weighted_f1")


def with_thresholds(task: Task, truth: npt.NDArray[Any], scores: Scores) -> Task:
    """``task`` with the thresholds that validation says: ``truth`` and ``scores`` (N, C).

    Three ways are tried: 1/2 for all classes; one common threshold, of the best F1 over all cells;
    and for each class with at least ``ENOUGH`` texts its own, of its best F1, the common one for
    the others. The best under the task's metric is taken, of equal ones the first. Other tasks come
    back as they are.
    """
    if not thresholds(task) or not len(truth):
        return task
    true = np.asarray(truth, dtype=bool)
    common = best_threshold(true.ravel(), scores.ravel())
    enough = true.sum(axis=0) >= ENOUGH
    own = tuple(
        best_threshold(true[:, c], scores[:, c]) if enough[c] else common
        for c in range(true.shape[1])
    )
    tried = [replace(task, thresholds=each) for each in (None, (common,) * len(task.classes), own)]
    said = scores.astype(np.float32, copy=False)
    return max(tried, key=lambda each: value(each, true, answered(each, said)))


def judged(task: Task, truth: npt.NDArray[Any], scores: npt.NDArray[np.float32]) -> float:
    """What scores on validation are worth under the task's metric, decided as a classifier would
    that chose its thresholds on them."""
    chosen = with_thresholds(task, truth, scores)
    return value(chosen, truth, answered(chosen, scores))


def best_threshold(positive: npt.NDArray[np.bool_], scores: Scores) -> float:
    """The threshold within ``BOUNDS`` of the best F1 of ``scores`` (N,), half-way between two of
    them; of equally good ones the nearest to 1/2."""
    rising = np.sort(scores.astype(np.float64))
    between = (rising[1:] + rising[:-1]) / 2
    tried = np.unique(np.clip(np.append(between, [0.5, *BOUNDS]), *BOUNDS))
    said = len(rising) - np.searchsorted(rising, tried, side="left")
    hits = np.sort(scores[positive].astype(np.float64))
    right = len(hits) - np.searchsorted(hits, tried, side="left")
    f1 = 2 * right / np.maximum(said + len(hits), 1)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    return float(tried[best[np.abs(tried[best] - 0.5).argmin()]])
