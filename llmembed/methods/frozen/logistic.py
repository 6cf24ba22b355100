"""Logistic regression on ready features: the baseline no head may lose to (PAPERS: LE, section 3).

The solver is scikit-learn's; the inverse regularisation C is chosen on texts left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmembed.contract import Prediction, Task
from llmembed.errors import ModelError
from llmembed.folds import Folds, index_of
from llmembed.methods.answers import decide, with_thresholds
from llmembed.metrics.deciding import judged

NEVER = -1e4
"""Bias of a class without a training row: its probability is 0 in float32."""


CLASSES_TOGETHER = 150
"""Classes that the solver fits all at once. Its tolerance is one for the gradient of all of them:
of hundreds of classes each one's share lies below it from the start, and nothing is learned. More
are fitted class by class, each against all others."""

WEIGHTS_TOGETHER = 5_000_000
"""As many weights at once: the solver keeps some 25 copies of them, in float64."""


@dataclass(frozen=True, kw_only=True)
class Linear:
    """One task's linear map: ``weights`` float32 (F, C), ``bias`` float32 (C,)."""

    weights: np.ndarray
    bias: np.ndarray

    def scores(self, features: Any, kind: str) -> np.ndarray:
        """Probabilities float32 (N, C) from ``features`` (N, F), dense or sparse."""
        logits = np.asarray(features @ self.weights) + self.bias
        if kind == "multi":
            return np.asarray(1 / (1 + np.exp(-np.clip(logits, -80, 80))), dtype=np.float32)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True), dtype=np.float32)


def cross_fit_linears(
    tasks: Sequence[Task],
    features: Any,
    folds: Folds,
    inverse_penalties: Sequence[float],
    *,
    class_weights: bool = False,
) -> tuple[tuple[Task, ...], dict[str, Linear], dict[str, float], dict[str, Prediction]]:
    """The tasks with the thresholds that texts left out say, the map of each, its C, and what was
    answered to these texts.

    ``features``: (N, F) of all texts of ``folds``, dense or sparse. One C is chosen for all folds,
    the best under the task's metric; ties go to the smaller, the stronger penalty. With ``refit``
    the maps are then fitted on all texts, else they are those of the only fold. ``class_weights``:
    the rows of a class are weighted by the inverse of its share; for ``multi`` those with and
    without it.
    """
    linears: dict[str, Linear] = {}
    chosen: dict[str, float] = {}
    left_out: dict[str, np.ndarray] = {}
    rows, held_out = folds.rows, folds.left_out
    for task in tasks:
        labels = folds.examples.labels[task.name]
        best: float | None = None
        for penalty in sorted(inverse_penalties):
            scores = np.zeros((len(folds.examples), len(task.classes)), dtype=np.float32)
            for number, held in enumerate(folds.held):
                fitted = index_of(folds.fitted(number))
                linear = _fit(task, features[fitted], labels[fitted], penalty, class_weights)
                scores[held] = linear.scores(features[index_of(held)], task.kind)
            value = judged(task, labels[rows], scores[rows])
            if best is None or value > best:
                best, chosen[task.name], left_out[task.name] = value, penalty, scores[rows]
                linears[task.name] = linear
        if folds.refit:
            final = _fit(task, features, labels, chosen[task.name], class_weights)
            linears[task.name] = final
    tasks = with_thresholds(tasks, held_out, lambda task: left_out[task.name])
    answered = {task.name: decide(left_out[task.name], task) for task in tasks}
    return tasks, linears, chosen, answered


def answers(
    tasks: Sequence[Task], linears: Mapping[str, Linear], features: Any
) -> dict[str, Prediction]:
    """What the maps say of ``features`` (N, F)."""
    return {
        task.name: decide(linears[task.name].scores(features, task.kind), task) for task in tasks
    }


def parameters_of(linears: Mapping[str, Linear]) -> int:
    """How many weights were fitted."""
    return sum(linear.weights.size + linear.bias.size for linear in linears.values())


def _fit(task: Task, features: Any, labels: np.ndarray, penalty: float, weighted: bool) -> Linear:
    width = features.shape[1]
    count = len(task.classes)
    weights = np.zeros((width, count), dtype=np.float32)
    bias = np.full(count, NEVER, dtype=np.float32)
    if task.kind == "multi":
        for column in range(count):
            target = labels[:, column]
            if target.any() and not target.all():
                rows = _balanced(target) if weighted else None
                weights[:, column], bias[column] = _binary(features, target, penalty, rows)
            elif target.all():
                bias[column] = -NEVER
        return Linear(weights=weights, bias=bias)
    seen = np.unique(labels)
    rows = _balanced(labels) if weighted else None
    if len(seen) == 1:
        bias[seen] = 0.0
    elif len(seen) == 2:
        target = labels == seen[1]
        weights[:, seen[1]], bias[seen[1]] = _binary(features, target, penalty, rows)
        bias[seen[0]] = 0.0
    elif len(seen) > CLASSES_TOGETHER or len(seen) * width > WEIGHTS_TOGETHER:
        for label in seen:
            target = labels == label
            weights[:, label], bias[label] = _one_of_many(features, target, penalty, rows)
    else:
        model = _solver(penalty).fit(features, labels, sample_weight=rows)
        weights[:, seen] = model.coef_.T
        bias[seen] = model.intercept_
    return Linear(weights=weights, bias=bias)


def _balanced(labels: np.ndarray) -> np.ndarray:
    """(N,): the inverse of the share of each row's class, 1 in the mean; what scikit-learn calls
    balanced."""
    seen, which, count = np.unique(labels, return_inverse=True, return_counts=True)
    weights: np.ndarray = (len(labels) / (len(seen) * count))[which]
    return weights


def _binary(
    features: Any, target: np.ndarray, penalty: float, rows: np.ndarray | None
) -> tuple[np.ndarray, float]:
    model = _solver(penalty).fit(features, target.astype(np.int64), sample_weight=rows)
    return model.coef_[0], float(model.intercept_[0])


def _one_of_many(
    features: Any, target: np.ndarray, penalty: float, rows: np.ndarray | None
) -> tuple[np.ndarray, float]:
    """One class against all others, by liblinear: its tolerance goes by the class's share."""
    from sklearn.linear_model import LogisticRegression

    solver = LogisticRegression(
        C=penalty, max_iter=300, tol=1e-2, solver="liblinear", dual=True, random_state=0
    )
    model = solver.fit(features, target.astype(np.int64), sample_weight=rows)
    return model.coef_[0], float(model.intercept_[0])


def _solver(penalty: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=penalty, max_iter=300, tol=1e-3)


def to_arrays(linears: Mapping[str, Linear]) -> dict[str, np.ndarray]:
    """Arrays by name, for ``saved.write``."""
    return {
        f"{name}.{part}": getattr(linear, part)
        for name, linear in linears.items()
        for part in ("weights", "bias")
    }


def from_arrays(tasks: Sequence[Task], arrays: Mapping[str, np.ndarray]) -> dict[str, Linear]:
    """The inverse of ``to_arrays``. Raises ``ModelError`` where they don't fit the classes."""
    linears = {}
    for task in tasks:
        weights, bias = arrays[f"{task.name}.weights"], arrays[f"{task.name}.bias"]
        count = (len(task.classes),)
        if weights.ndim != 2 or weights.shape[1:] != count or bias.shape != count:
            raise ModelError(f"the weights of task {task.name!r} don't fit its classes")
        linears[task.name] = Linear(weights=weights, bias=bias)
    return linears
