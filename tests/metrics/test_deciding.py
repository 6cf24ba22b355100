"""Labels from scores: by the largest, by the least expected cost, by thresholds of validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from llmembed.contract import Examples, Silent, Task
from llmembed.methods import load
from llmembed.methods.answers import decide
from llmembed.methods.frozen.lexical import Lexical
from llmembed.metrics.deciding import BOUNDS, best_threshold, judged, with_thresholds
from llmembed.metrics.measuring import value

SPAM = Task(name="spam", classes=("ham", "spam"))
TAGS = Task(name="tags", classes=("often", "rare", "hardly"), kind="multi")


def drawn(seed: int, count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Truth and scores (N, 3) that rank well but lie low for classes that are rare."""
    rng = np.random.default_rng(seed)
    truth = rng.random((count, 3)) < (0.4, 0.08, 0.01)
    scores = rng.beta(2, 8, (count, 3)) * (1.0, 0.6, 0.3) + truth * (0.3, 0.15, 0.1)
    return truth, scores.astype(np.float32)


def test_without_costs_and_thresholds_labels_are_the_largest_and_from_a_half() -> None:
    scores = np.array([[0.4, 0.6], [0.5, 0.5], [0.9, 0.1]], dtype=np.float32)
    assert decide(scores, SPAM).labels.tolist() == [1, 0, 0]
    two = Task(name="t", classes=("a", "b"), kind="multi")
    assert decide(scores, two).labels.tolist() == [[False, True], [True, True], [True, False]]


def test_costs_make_the_answer_the_one_of_least_expected_cost() -> None:
    dear = replace(SPAM, costs=((0.0, 9.0), (1.0, 0.0)))  # a ham thrown away costs 9
    scores = np.array([[0.2, 0.8], [0.1, 0.9], [0.05, 0.95]], dtype=np.float32)
    # spam where p(ham) · 9 < p(spam) · 1, from .9 on; at .9 both cost .9
    assert decide(scores, dear).labels.tolist() == [0, 0, 1]
    assert decide(scores, replace(dear, costs=((0.0, 1.0), (1.0, 0.0)))).labels.tolist() == [1] * 3


def test_the_best_threshold_is_found_among_all() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        positive = rng.random(60) < 0.3
        scores = np.round(rng.random(60) * 0.5 + 0.3 * positive, 2).astype(np.float32)
        found = best_threshold(positive, scores)
        tried = [f1_score(positive, scores >= t) for t in np.arange(0.05, 0.95, 0.005)]
        assert BOUNDS[0] <= found <= BOUNDS[1]
        assert f1_score(positive, scores >= found) >= max(tried) - 1e-12


def test_thresholds_are_bounded_and_none_stands_on_a_handful_of_texts() -> None:
    truth, scores = drawn(0)
    assert truth[:, 2].sum() < 10 <= truth[:, 1].sum()
    chosen = with_thresholds(replace(TAGS, metric="macro_f1"), truth, scores)
    assert chosen.thresholds is not None
    common = best_threshold(truth.ravel(), scores.ravel())
    assert chosen.thresholds[2] == common  # too few texts for one of its own
    assert chosen.thresholds[1] == best_threshold(truth[:, 1], scores[:, 1]) < 0.5
    never = np.zeros((50, 3), dtype=bool)
    tiny = np.full((50, 3), 1e-4, dtype=np.float32)
    never[:12, 0], tiny[:12, 0] = True, 2e-4
    least = with_thresholds(replace(TAGS, metric="macro_f1"), never, tiny)
    assert all(each >= BOUNDS[0] for each in least.thresholds or (0.5,))


@pytest.mark.parametrize("metric", ["micro_f1", "macro_f1", "weighted_f1"])
def test_thresholds_are_never_worse_on_validation_than_a_half(metric: str) -> None:
    for seed in range(5):
        truth, scores = drawn(seed)
        task = replace(TAGS, metric=metric)
        plain = value(task, truth, decide(scores, task))
        chosen = with_thresholds(task, truth, scores)
        assert value(chosen, truth, decide(scores, chosen)) == judged(task, truth, scores) > plain


def test_only_an_f1_that_was_asked_for_moves_thresholds() -> None:
    truth, scores = drawn(0)
    for metric in (None, "subset_accuracy", "ranking_precision", "log_loss"):
        task = replace(TAGS, metric=metric)
        assert with_thresholds(task, truth, scores) is task
    assert with_thresholds(SPAM, truth[:, 0].astype(np.int64), scores[:, :2]) is SPAM


def test_of_equal_ways_the_plainest_is_taken() -> None:
    truth = np.zeros((40, 3), dtype=bool)
    truth[:20] = True
    scores = np.where(truth, 0.9, 0.1).astype(np.float32)
    assert with_thresholds(replace(TAGS, metric="micro_f1"), truth, scores).thresholds is None


def rare(count: int, seed: int) -> Examples:
    """Spam is rare, and half of what says `prize` is."""
    rng = np.random.default_rng(seed)
    prize = rng.random(count) < 0.12
    spam = prize & (rng.random(count) < 0.5)
    fill = [f"w{i}" for i in rng.integers(0, 30, count)]
    texts = [
        f"{word} {'prize' if each else 'lunch'}" for word, each in zip(fill, prize, strict=True)
    ]
    several = np.stack([spam, ~prize], axis=1)
    return Examples(texts=texts, labels={"spam": spam.astype(np.int64), "tags": several})


def test_a_saved_classifier_answers_as_it_was_chosen(tmp_path) -> None:
    """Thresholds and costs of its tasks go with it."""
    from llmembed.cluster import LocalRuntime

    tasks = (
        replace(SPAM, costs=((0.0, 1.0), (5.0, 0.0)), metric="cost"),
        Task(name="tags", classes=("spam", "lunch"), kind="multi", metric="macro_f1"),
    )
    train, valid, test = rare(300, 0), rare(200, 1), rare(200, 2)
    fitted = Lexical().fit(tasks, train, valid, LocalRuntime(tmp_path), Silent())
    plain = Lexical().fit(
        [replace(task, costs=None, metric=None) for task in tasks],
        *(train, valid, LocalRuntime(tmp_path), Silent()),
    )
    assert fitted.tasks[1].thresholds is not None and fitted.tasks[0] == tasks[0]
    fitted.save(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert again.tasks == fitted.tasks
    told, once = again.predict(test.texts), fitted.predict(test.texts)
    for task in fitted.tasks:
        assert np.array_equal(told[task.name].labels, once[task.name].labels)
        # The task as it was asked: what is compared is how answers were decided.
        asked = next(each for each in tasks if each.name == task.name)
        better = value(asked, test.labels[task.name], told[task.name])
        assert better > value(asked, test.labels[task.name], plain.predict(test.texts)[task.name])
