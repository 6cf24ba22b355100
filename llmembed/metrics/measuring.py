"""Metrics computed: from labels by counts of each class, or from scores.

Their definitions are scikit-learn's, but for what scikit-learn does not know: an answer that could
not be read (-1) is wrong and answers no class.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from llmembed.contract import Prediction, Task
from llmembed.errors import UnsupportedError
from llmembed.metrics.counts import COUNTED, Counts, Ints, of_counts
from llmembed.metrics.names import metric_of, needs_scores, precision_of, value_of
from llmembed.metrics.slots import slot_counts

LEAST = 1e-15
"""A probability below it counts as it in the log loss."""


def figures(
    task: Task, truth: npt.NDArray[Any], prediction: Prediction, found: Counts | None = None
) -> dict[str, float]:
    """All that is told of the answers, by name, as shown. ``found``: ``counts`` of them, where they
    are known. Raises ``UnsupportedError`` where the task's own metric can't be told."""
    found = counts(task, truth, prediction) if found is None else found
    metric = metric_of(task)
    if task.kind == "tokens":
        names = ["word_accuracy", "slot_f1", "macro_f1", "weighted_f1"]
    elif task.kind == "multi":
        names = ["subset_accuracy", "micro_f1", "macro_f1", "weighted_f1"]
        names += [] if prediction.scores is None else [*_RANKINGS, "log_loss"]
    else:
        names = ["accuracy", "macro_f1", "weighted_f1", "balanced_accuracy", "mcc"]
        names += [] if task.costs is None else ["cost"]
        names += [] if prediction.scores is None else ["log_loss"]
    return {
        name: of_counts(name, found)
        if name in COUNTED and len(truth)
        else figure(name, task, truth, prediction)
        for name in dict.fromkeys([*names, metric])
    }


def value(task: Task, truth: npt.NDArray[Any], prediction: Prediction) -> float:
    """What the answers are worth under the task's metric; higher is better.

    Raises ``UnsupportedError`` where the metric needs scores and there are none.
    """
    metric = metric_of(task)
    return value_of(metric, figure(metric, task, truth, prediction))


def figure(metric: str, task: Task, truth: npt.NDArray[Any], prediction: Prediction) -> float:
    """One figure by name, as it is shown. 0 of no texts."""
    if len(truth) == 0:
        return 0.0
    if needs_scores(metric):
        return _of_scores(metric, task, truth, _scores(metric, task, prediction))
    if metric in _MEANS:
        return float(_MEANS[metric](task, truth, prediction).mean())
    return of_counts(metric, counts(task, truth, prediction))


def counts(task: Task, truth: npt.NDArray[Any], prediction: Prediction) -> Counts:
    """Of classes; for ``tokens`` of entity types, those that occur."""
    if task.kind == "tokens":
        assert prediction.offsets is not None, "a prediction of word labels has offsets"
        found = slot_counts(task.classes, truth, prediction.labels, prediction.offsets)
        return found.counts(len(truth))
    if task.kind == "multi":
        said, true = _several(truth, prediction)
        return Counts(
            right=(said & true).sum(0),
            answered=said.sum(0),
            support=true.sum(0),
            total=len(true),
        )
    return counts_of_labels(truth, readable(prediction), len(task.classes))


def counts_of_labels(truth: npt.NDArray[Any], labels: Ints, classes: int) -> Counts:
    """Of ``single`` answers (N,), -1 where unreadable."""
    return Counts(
        right=np.bincount(truth[labels == truth], minlength=classes),
        answered=np.bincount(labels[labels >= 0], minlength=classes),
        support=np.bincount(truth, minlength=classes),
        total=len(truth),
    )


_RANKINGS = ("ranking_precision", "coverage_error")


# --- what is a mean over texts (words)

ByText = Callable[[Task, npt.NDArray[Any], Prediction], npt.NDArray[np.float64]]


def _right(task: Task, truth: npt.NDArray[Any], prediction: Prediction) -> npt.NDArray[np.float64]:
    labels = prediction.labels if task.kind == "tokens" else readable(prediction)
    right: npt.NDArray[np.float64] = (labels == truth).astype(np.float64)
    return right


def _exact(task: Task, truth: npt.NDArray[Any], prediction: Prediction) -> npt.NDArray[np.float64]:
    said, true = _several(truth, prediction)
    exact: npt.NDArray[np.bool_] = (said == true).all(axis=1) & ~prediction.invalid
    return exact.astype(np.float64)


def cost_by_text(
    task: Task, truth: npt.NDArray[Any], prediction: Prediction
) -> npt.NDArray[np.float64]:
    """What each answer costs, (N,); an unreadable one as much as the dearest mistake."""
    assert task.costs is not None, "a task judged by cost has costs"
    table = np.asarray(task.costs, dtype=np.float64)
    labels = readable(prediction)
    found: npt.NDArray[np.float64] = np.where(
        labels < 0, table[truth].max(axis=1), table[truth, np.maximum(labels, 0)]
    )
    return found


def log_loss_by_text(
    task: Task, truth: npt.NDArray[Any], prediction: Prediction
) -> npt.NDArray[np.float64]:
    """The negative logarithm of what was given to the truth, (N,); for ``multi`` the mean over
    classes."""
    scores = _scores("log_loss", task, prediction)
    if task.kind == "multi":
        given = np.where(np.asarray(truth, dtype=bool), scores, 1.0 - scores)
        whole: npt.NDArray[np.float64] = -np.log(np.maximum(given, LEAST)).mean(axis=1)
        return whole
    own = np.maximum(scores[np.arange(len(truth)), truth], LEAST)
    lost: npt.NDArray[np.float64] = -np.log(own)
    return lost


_MEANS: dict[str, ByText] = {
    "accuracy": _right,
    "word_accuracy": _right,
    "subset_accuracy": _exact,
    "cost": cost_by_text,
}


def by_text(
    metric: str, task: Task, truth: npt.NDArray[Any], prediction: Prediction
) -> npt.NDArray[np.float64] | None:
    """One value a text (N,), of ``word_accuracy`` a word, of which the figure is the mean; None of
    those figures that are no such mean."""
    if metric == "log_loss":
        return log_loss_by_text(task, truth, prediction)
    return _MEANS[metric](task, truth, prediction) if metric in _MEANS else None


# --- by scores


def _scores(metric: str, task: Task, prediction: Prediction) -> npt.NDArray[np.float64]:
    """float64 (N, C); of an answer that could not be read all are 0."""
    if prediction.scores is None:
        raise UnsupportedError(
            f"task {task.name!r} is judged by {metric}, which needs scores, and this method gives "
            "labels alone"
        )
    scores = prediction.scores.astype(np.float64)
    if task.kind != "tokens":
        scores[prediction.invalid] = 0.0
    return scores


def _of_scores(
    metric: str, task: Task, truth: npt.NDArray[Any], scores: npt.NDArray[np.float64]
) -> float:
    if metric == "log_loss":
        whole = Prediction(
            labels=truth,
            scores=scores,  # type: ignore[arg-type]
            invalid=np.zeros(len(truth), dtype=bool),
        )
        return float(log_loss_by_text(task, truth, whole).mean())
    if metric in _RANKINGS:
        from sklearn.metrics import coverage_error, label_ranking_average_precision_score

        if scores.shape[1] == 1:  # it is always ranked first
            return 1.0 if metric == "ranking_precision" else float(np.mean(truth))
        ranked = {
            "ranking_precision": label_ranking_average_precision_score,
            "coverage_error": coverage_error,
        }
        return float(ranked[metric](np.asarray(truth, dtype=np.int64), scores))
    precision = precision_of(metric)
    assert precision is not None, metric
    return recall_at_precision(truth, scores, precision)


def recall_at_precision(
    truth: npt.NDArray[Any], scores: npt.NDArray[np.float64], precision: float
) -> float:
    """The mean over the classes that occur in ``truth`` (N,) of the largest share of their texts
    that can be found, each by a threshold for its score, with at least ``precision``."""
    found = [
        _recall(truth == label, scores[:, label], precision) for label in np.unique(truth).tolist()
    ]
    return float(np.mean(found)) if found else 0.0


def _recall(
    positive: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64], precision: float
) -> float:
    """0 where no threshold is as precise."""
    order = np.argsort(-scores, kind="stable")
    right = np.cumsum(positive[order])
    last = np.append(np.diff(scores[order]) != 0, True)  # texts of equal score are told together
    enough = last & (right >= precision * np.arange(1, len(scores) + 1) - 1e-9)
    return float(right[enough].max() / positive.sum()) if enough.any() else 0.0


# --- labels


def _several(
    truth: npt.NDArray[Any], prediction: Prediction
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Answers and truth of ``multi``, bool (N, C); what could not be read answers nothing."""
    said = np.asarray(prediction.labels, dtype=bool) & ~prediction.invalid[:, None]
    return said, np.asarray(truth, dtype=bool)


def readable(prediction: Prediction) -> Ints:
    """``single`` answers, int64 (N,), -1 where unreadable by label or by mask."""
    return np.where(prediction.invalid, -1, prediction.labels).astype(np.int64)
