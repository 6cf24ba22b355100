"""Which texts are left out in turn."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError

from llmembed.contract import Examples, Task
from llmembed.errors import ConfigError
from llmembed.experiment import SelectionSettings
from llmembed.pipelines.folding import FEW, make_folds


def corpus(texts, labels, *, valid: int, kind="single", own: bool = False):
    task = Task(name="topic", classes=("a", "b", "c"), kind=kind)
    cut = len(texts) - valid
    return SimpleNamespace(
        tasks=(task,),
        has_own_valid=own,
        train=Examples(texts=texts[:cut], labels={"topic": labels[:cut]}),
        valid=Examples(texts=texts[cut:], labels={"topic": labels[cut:]}),
    )


def test_every_row_once_equal_texts_together_classes_everywhere():
    rng = np.random.default_rng(0)
    labels = rng.choice(3, size=500, p=[0.8, 0.17, 0.03])
    texts = [f"text {n % 400}" for n in range(500)]
    labels[400:] = labels[:100]
    folds = make_folds(corpus(texts, labels, valid=50), SelectionSettings(), seed=0)
    assert folds is not None
    assert len(folds.held) == 5
    np.testing.assert_array_equal(folds.rows, np.arange(500))
    for number, held in enumerate(folds.held):
        assert not {texts[row] for row in held} & {texts[row] for row in folds.fitted(number)}
        shares = np.bincount(labels[held], minlength=3) / len(held)
        np.testing.assert_allclose(shares, np.bincount(labels) / 500, atol=0.04)
    again = make_folds(corpus(texts, labels, valid=50), SelectionSettings(), seed=0)
    other = make_folds(corpus(texts, labels, valid=50), SelectionSettings(), seed=1)
    assert again is not None
    assert other is not None
    assert all((a == b).all() for a, b in zip(folds.held, again.held, strict=True))
    assert any(
        a.shape != b.shape or (a != b).any() for a, b in zip(folds.held, other.held, strict=True)
    )


def test_of_many_rows_the_validation_part_is_left_out_once():
    count = FEW + 1
    texts = [f"text {n}" for n in range(count)]
    folds = make_folds(
        corpus(texts, np.zeros(count, dtype=int), valid=500), SelectionSettings(), seed=0
    )
    assert folds is not None
    [held] = folds.held
    np.testing.assert_array_equal(held, np.arange(count - 500, count))
    assert folds.refit


def test_a_validation_part_that_was_chosen_is_not_mixed_with_train():
    texts, labels = [f"text {n}" for n in range(100)], np.arange(100) % 3
    folds = make_folds(corpus(texts, labels, valid=20, own=True), SelectionSettings(), seed=0)
    assert folds is not None
    np.testing.assert_array_equal(folds.rows, np.arange(80, 100))
    asked = SelectionSettings(folds=5)
    folds = make_folds(corpus(texts, labels, valid=20, own=True), asked, seed=0)
    assert folds is not None
    assert len(folds.held) == 5


def test_no_fold_is_empty():
    same = corpus(["a", "b", "c"] * 10, np.arange(30) % 3, valid=6)
    folds = make_folds(same, SelectionSettings(), seed=0)
    assert folds is not None
    assert len(folds.held) == 1
    with pytest.raises(ConfigError, match="folds is 7, but there are 3 distinct texts"):
        make_folds(same, SelectionSettings(folds=7), seed=0)


def test_sets_of_labels_are_spread_too():
    labels = np.array([[1, 0, 0]] * 50 + [[1, 1, 0]] * 10, dtype=bool)
    folds = make_folds(
        corpus([f"t{n}" for n in range(60)], labels, valid=6, kind="multi"),
        SelectionSettings(folds=5),
        seed=0,
    )
    assert folds is not None
    assert [int(labels[held, 1].sum()) for held in folds.held] == [2] * 5


def test_what_makes_no_classifier_is_refused():
    with pytest.raises(ValidationError, match="wants folds: 1"):
        SelectionSettings(refit=False)
    with pytest.raises(ValidationError, match="auto or 1 to 50"):
        SelectionSettings(folds=0)
    one = corpus(["a", "b", "c"], np.array([0, 1, 0]), valid=1)
    assert make_folds(one, SelectionSettings(folds=1, refit=False), seed=0) is None
