"""The index of drift: near nothing where there is none, however many classes there are."""

from __future__ import annotations

import numpy as np
import pytest

from serve.model.drift import index_of


def counted(shares: np.ndarray, texts: int, rng: np.random.Generator) -> dict[int, int]:
    return {i: int(n) for i, n in enumerate(rng.multinomial(texts, shares))}


def indices(classes: int, answers: int, *, validation: int, shifted: bool = False) -> list[float]:
    """Of 60 pairs of samples; classes are as frequent as words are."""
    rng = np.random.default_rng(classes)
    then = 1 / np.arange(1, classes + 1)
    then /= then.sum()
    now = np.roll(then, classes // 4) if shifted else then
    found = [
        index_of(counted(now, answers, rng), counted(then, validation, rng)) for _ in range(60)
    ]
    assert None not in found
    return found


@pytest.mark.parametrize("validation", [200, 1000])
@pytest.mark.parametrize("classes", [8, 52, 77])
def test_the_same_texts_are_calm_and_others_a_shift(classes: int, validation: int) -> None:
    for answers in (400, 1000):
        calm = indices(classes, answers, validation=validation)
        assert min(calm) >= 0
        assert np.median(calm) < 0.1
        assert np.quantile(calm, 0.95) < 0.2
    assert np.quantile(indices(classes, 1000, validation=validation, shifted=True), 0.05) > 0.25


def test_more_classes_need_more_answers() -> None:
    few, many = {0: 50, 1: 50}, dict.fromkeys(range(50), 2)
    assert index_of(few, few) == 0
    assert index_of({0: 99}, few) is None
    assert index_of(many, many) is None
    assert index_of(dict.fromkeys(range(50), 5), many) is not None
    assert index_of(dict.fromkeys(range(1000), 1), many) is not None, "the window is never exceeded"


def test_classes_that_nobody_answered_count_for_nothing() -> None:
    some = {0: 80, 1: 40}
    assert index_of(some, {0: 50, 1: 60}) == index_of(some, {0: 50, 1: 60, 2: 0, 3: 0})
