"""Logistic regression over hundreds of classes: each is learned."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix, vstack

from llmembed.contract import Examples, Task
from llmembed.folds import Folds
from llmembed.methods.frozen.logistic import _one_of_many, cross_fit_linears

CLASSES = 200


def rows(number: int, width: int, seed: int) -> tuple[csr_matrix, np.ndarray]:
    """Each text has the word of its class and eight words of chance, of equal weight."""
    rng = np.random.default_rng(seed)
    labels = np.arange(number) % CLASSES
    columns = np.column_stack([labels, rng.integers(CLASSES, width, (number, 8))])
    place = np.repeat(np.arange(number), 9)
    data = np.full(9 * number, 1 / 3, dtype=np.float32)
    return csr_matrix((data, (place, columns.ravel())), shape=(number, width)), labels


def fitted(features, labels, held, truth):
    task = Task(name="t", classes=tuple(map(str, range(CLASSES))))
    train = Examples(texts=[""] * len(labels), labels={"t": labels})
    valid = Examples(texts=[""] * len(truth), labels={"t": truth})
    both = vstack([features, held], format="csr")
    return cross_fit_linears([task], both, Folds.of(train, valid), [10.0])[1]["t"]


def test_a_word_for_each_class_is_learned() -> None:
    features, labels = rows(2 * CLASSES, 2000, seed=0)
    held, truth = rows(CLASSES, 2000, seed=1)
    linear = fitted(features, labels, held, truth)
    scores = linear.scores(held, "single")
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-4)
    assert (scores.argmax(axis=1) == truth).mean() > 0.8
    again, _ = _one_of_many(features, labels == 7, 10.0, None)  # the same whenever it is fitted
    assert np.array_equal(linear.weights[:, 7], again.astype(np.float32))
