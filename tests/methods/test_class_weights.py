"""Class weights of the methods without heads are scikit-learn's balanced ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from llmembed.contract import Examples, Task
from llmembed.folds import Folds
from llmembed.methods.frozen import logistic
from llmembed.methods.frozen.logistic import cross_fit_linears
from llmembed.metrics.measuring import value


def drawn(seed: int, shares: tuple[float, ...], count: int = 400):
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(shares), count, p=shares)
    centres = np.random.default_rng(5).normal(size=(len(shares), 8)) * 0.8
    features = (centres[labels] + rng.normal(size=(count, 8))).astype(np.float32)
    return features, labels


def examples(labels: np.ndarray) -> Examples:
    return Examples(texts=[""] * len(labels), labels={"t": labels})


def fit(task: Task, train, valid, penalties=(1.0,), **more):
    (x, y), (vx, vy) = train, valid
    folds = Folds.of(examples(y), examples(vy))
    _, linears, chosen, _ = cross_fit_linears(
        [task], np.concatenate([x, vx]), folds, penalties, **more
    )
    return linears[task.name], chosen[task.name]


@pytest.mark.parametrize("shares", [(0.9, 0.1), (0.8, 0.15, 0.05)])
def test_they_are_scikit_learns_balanced_ones(shares):
    task = Task(name="t", classes=tuple("abc")[: len(shares)])
    train, valid = drawn(0, shares), drawn(1, shares)
    ours, _ = fit(task, train, valid, class_weights=True)
    solver = LogisticRegression(C=1.0, max_iter=300, tol=1e-3, class_weight="balanced")
    theirs = solver.fit(*train)
    assert np.allclose(ours.scores(valid[0], "single"), theirs.predict_proba(valid[0]), atol=1e-3)
    plain, _ = fit(task, train, valid)
    rare = len(shares) - 1
    more = (ours.scores(valid[0], "single").argmax(1) == rare).sum()
    assert more > (plain.scores(valid[0], "single").argmax(1) == rare).sum()


def test_several_labels_are_weighted_each_by_itself():
    features, labels = drawn(0, (0.85, 0.1, 0.05))
    several = np.stack([labels == 0, labels == 2], axis=1)
    task = Task(name="t", classes=("a", "c"), kind="multi")
    ours, _ = fit(task, (features, several), (features, several), class_weights=True)
    for column in range(2):
        solver = LogisticRegression(C=1.0, max_iter=300, tol=1e-3, class_weight="balanced")
        theirs = solver.fit(features, several[:, column]).predict_proba(features)[:, 1]
        assert np.allclose(ours.scores(features, "multi")[:, column], theirs, atol=1e-3)


def test_many_classes_that_are_fitted_one_by_one_take_them_too(monkeypatch):
    monkeypatch.setattr(logistic, "CLASSES_TOGETHER", 2)
    task = Task(name="t", classes=tuple("abc"))
    train, valid = drawn(0, (0.8, 0.15, 0.05)), drawn(1, (0.8, 0.15, 0.05))
    rare = [
        (
            fit(task, train, valid, class_weights=on)[0].scores(valid[0], "single").argmax(1) == 2
        ).sum()
        for on in (False, True)
    ]
    assert rare[1] > rare[0]


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "log_loss", "recall_at_precision_0.8"])
def test_the_penalty_is_the_best_under_the_metric(metric):
    task = Task(name="t", classes=tuple("abc"), metric=metric)
    train, valid = drawn(0, (0.8, 0.15, 0.05), 150), drawn(1, (0.8, 0.15, 0.05))
    penalties = (1e-4, 1e-2, 1.0, 100.0)
    _, chosen = fit(task, train, valid, penalties)
    worth = {}
    for penalty in penalties:
        linear, _ = fit(task, train, valid, (penalty,))
        told = logistic.answers([task], {"t": linear}, valid[0])["t"]
        worth[penalty] = value(task, valid[1], told)
    assert chosen == min(p for p, each in worth.items() if each == max(worth.values()))
    if metric == "accuracy":  # the same as when nothing is named
        assert fit(replace(task, metric=None), train, valid, penalties)[1] == chosen
