"""Logistic regression on ready features: the baseline no head may lose to (PAPERS: LE, section 3).

The solver is scikit-learn's; the inverse regularisation C is chosen on the validation part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmembed.contract import Examples, Prediction, Task
from llmembed.errors import ModelError
from llmembed.folds import Folds
from llmembed.methods.answers import decide

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


def fit_linear(
    task: Task,
    features: Any,
    train: Examples,
    valid_features: Any,
    valid: Examples,
    inverse_penalties: Sequence[float],
) -> tuple[Linear, float]:
    """Fit one task; returns the map best on validation and the C it was fitted with.

    ``features``: (N, F), dense or sparse. Ties go to the smaller C, the stronger penalty.
    """
    truth = valid.labels[task.name]
    best: tuple[float, float, Linear] | None = None
    for penalty in sorted(inverse_penalties):
        linear = _fit(task, features, train.labels[task.name], penalty)
        score = _quality(decide(linear.scores(valid_features, task.kind), task.kind).labels, truth)
        if best is None or score > best[0]:
            best = (score, penalty, linear)
    assert best is not None, "no C to choose from"
    return best[2], best[1]


def fit_linears(
    tasks: Sequence[Task],
    features: Any,
    train: Examples,
    valid_features: Any,
    valid: Examples,
    inverse_penalties: Sequence[float],
) -> tuple[dict[str, Linear], dict[str, float]]:
    """``fit_linear`` for each task: the maps, and the C of each."""
    linears: dict[str, Linear] = {}
    chosen: dict[str, float] = {}
    for task in tasks:
        linears[task.name], chosen[task.name] = fit_linear(
            task, features, train, valid_features, valid, inverse_penalties
        )
    return linears, chosen


def cross_fit_linears(
    tasks: Sequence[Task], features: Any, folds: Folds, inverse_penalties: Sequence[float]
) -> tuple[dict[str, Linear], dict[str, float], dict[str, Prediction]]:
    """The maps, the C of each, and what was answered to texts that are left out.

    ``features``: (N, F) of all texts of ``folds``. One C is chosen for all folds. With ``refit``
    the maps are fitted on all texts, else on those of the only fold.
    """
    linears: dict[str, Linear] = {}
    chosen: dict[str, float] = {}
    answered: dict[str, Prediction] = {}
    rows = folds.rows
    for task in tasks:
        labels = folds.examples.labels[task.name]
        best = -1.0
        for penalty in sorted(inverse_penalties):
            scores = np.zeros((len(folds.examples), len(task.classes)), dtype=np.float32)
            for number, held in enumerate(folds.held):
                fitted = folds.fitted(number)
                linear = _fit(task, features[fitted], labels[fitted], penalty)
                scores[held] = linear.scores(features[held], task.kind)
            said = decide(scores[rows], task.kind)
            value = _quality(said.labels, labels[rows])
            if value > best:
                best, chosen[task.name], answered[task.name] = value, penalty, said
                linears[task.name] = linear
        if folds.refit:
            linears[task.name] = _fit(task, features, labels, chosen[task.name])
    return linears, chosen, answered


def answers(
    tasks: Sequence[Task], linears: Mapping[str, Linear], features: Any
) -> dict[str, Prediction]:
    """What the maps say of ``features`` (N, F)."""
    return {
        task.name: decide(linears[task.name].scores(features, task.kind), task.kind)
        for task in tasks
    }


def parameters_of(linears: Mapping[str, Linear]) -> int:
    """How many weights were fitted."""
    return sum(linear.weights.size + linear.bias.size for linear in linears.values())


def _quality(labels: np.ndarray, truth: np.ndarray) -> float:
    """Accuracy (N,), or for several labels a text (N, C) F1 over all cells."""
    if truth.ndim == 2:
        both = int((labels & truth).sum())
        return 2 * both / max(1, int(labels.sum()) + int(truth.sum()))
    return float((labels == truth).mean()) if len(truth) else 0.0


def _fit(task: Task, features: Any, labels: np.ndarray, penalty: float) -> Linear:
    width = features.shape[1]
    count = len(task.classes)
    weights = np.zeros((width, count), dtype=np.float32)
    bias = np.full(count, NEVER, dtype=np.float32)
    if task.kind == "multi":
        for column in range(count):
            target = labels[:, column]
            if target.any() and not target.all():
                weights[:, column], bias[column] = _binary(features, target, penalty)
            elif target.all():
                bias[column] = -NEVER
        return Linear(weights=weights, bias=bias)
    seen = np.unique(labels)
    if len(seen) == 1:
        bias[seen] = 0.0
    elif len(seen) == 2:
        weights[:, seen[1]], bias[seen[1]] = _binary(features, labels == seen[1], penalty)
        bias[seen[0]] = 0.0
    elif len(seen) > CLASSES_TOGETHER or len(seen) * width > WEIGHTS_TOGETHER:
        for label in seen:
            weights[:, label], bias[label] = _one_of_many(features, labels == label, penalty)
    else:
        model = _solver(penalty).fit(features, labels)
        weights[:, seen] = model.coef_.T
        bias[seen] = model.intercept_
    return Linear(weights=weights, bias=bias)


def _binary(features: Any, target: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    model = _solver(penalty).fit(features, target.astype(np.int64))
    return model.coef_[0], float(model.intercept_[0])


def _one_of_many(features: Any, target: np.ndarray, penalty: float) -> tuple[np.ndarray, float]:
    """One class against all others, by liblinear: its tolerance goes by the class's share."""
    from sklearn.linear_model import LogisticRegression

    solver = LogisticRegression(
        C=penalty, max_iter=300, tol=1e-2, solver="liblinear", dual=True, random_state=0
    )
    model = solver.fit(features, target.astype(np.int64))
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
