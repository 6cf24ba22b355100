"""Exact small cases, and agreement with scikit-learn on random ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.sparse import load_npz
from sklearn import metrics as sk

from llmembed.contract import Prediction, Task
from llmembed.errors import UnsupportedError
from llmembed.evaluation import Scores, bootstrap_interval, score
from llmembed.evaluation.bootstrap import primary_parts
from llmembed.evaluation.confidence import reliability
from llmembed.metrics.slots import entities

ABC = Task(name="topic", classes=("a", "b", "c"))


def answers(labels, *, scores=None, invalid=None, offsets=None) -> Prediction:
    labels = np.asarray(labels)
    n = len(labels) if offsets is None else len(offsets) - 1
    return Prediction(
        labels=labels,
        scores=None if scores is None else np.asarray(scores, dtype=np.float32),
        invalid=np.zeros(n, dtype=bool) if invalid is None else np.asarray(invalid),
        offsets=None if offsets is None else np.asarray(offsets),
    )


def test_single_by_hand():
    got = score(ABC, np.array([0, 0, 0, 1, 1, 2]), answers([0, 0, 1, 1, 1, 0]))
    assert got.primary == "accuracy"
    assert got.value == pytest.approx(4 / 6)
    assert got.confusion == ((2, 1, 0), (0, 2, 0), (1, 0, 0))
    a, b, c = got.per_class
    assert (a.precision, a.recall, a.f1, a.support) == pytest.approx((2 / 3, 2 / 3, 2 / 3, 3))
    assert (b.precision, b.recall, b.f1, b.support) == pytest.approx((2 / 3, 1, 4 / 5, 2))
    assert (c.precision, c.recall, c.f1, c.support) == (0, 0, 0, 1)
    assert got.metrics["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 3)
    assert got.metrics["weighted_f1"] == pytest.approx((3 * 2 / 3 + 2 * 4 / 5) / 6)
    assert "ece" not in got.metrics
    assert got.collapsed is None


def test_unreadable_answers_are_wrong_and_counted():
    got = score(
        ABC, np.array([0, 1, 2, 2]), answers([0, -1, 2, 2], invalid=[False, True, False, True])
    )
    assert got.metrics["accuracy"] == 0.5  # the masked answer counts as unreadable too
    assert got.invalid_rate == 0.5
    assert got.confusion == ((1, 0, 0), (0, 0, 0), (0, 0, 1))
    assert got.per_class[2].recall == 0.5


@pytest.mark.parametrize("seed", range(3))
def test_single_agrees_with_sklearn(seed):
    rng = np.random.default_rng(seed)
    task = Task(name="t", classes=tuple("abcdefgh"))
    truth, labels = rng.integers(0, 7, 300), rng.integers(1, 8, 300)
    got = score(task, truth, answers(labels))
    assert got.metrics["accuracy"] == pytest.approx(sk.accuracy_score(truth, labels))
    for mean in ("macro", "weighted"):
        expected = sk.f1_score(truth, labels, average=mean, zero_division=0)
        assert got.metrics[f"{mean}_f1"] == pytest.approx(expected)
    matrix = sk.confusion_matrix(truth, labels, labels=range(8))
    assert np.array_equal(got.confusion, matrix)
    parts = sk.precision_recall_fscore_support(truth, labels, labels=range(8), zero_division=0)
    rows = [(r.precision, r.recall, r.f1, r.support) for r in got.per_class]
    assert np.allclose(rows, np.array(parts).T)


@pytest.mark.parametrize("classes", [100, 101, 400])
def test_scores_of_many_classes_stay_small_and_lose_nothing(classes, tmp_path):
    """JSON grows by line with the classes, the matrix is whole in a file of its own."""
    rng = np.random.default_rng(classes)
    task = Task(name="t", classes=tuple(f"class {i}" for i in range(classes)))
    truth = rng.integers(0, classes, 5 * classes)
    labels = np.where(rng.random(len(truth)) < 0.7, truth, rng.integers(0, classes, len(truth)))
    invalid = rng.random(len(truth)) < 0.01
    got = score(task, truth, answers(labels, invalid=invalid))
    matrix = sk.confusion_matrix(truth[~invalid], labels[~invalid], labels=range(classes))
    assert np.array_equal(got.pairs.matrix(), matrix)
    assert np.array_equal(got.pairs.answered, matrix.sum(axis=0))
    assert np.array_equal(got.pairs.right, np.diag(matrix))
    assert (got.confusion is None) == (classes > 100)
    text = json.dumps(got.to_json())
    assert len(text) < 300 * classes + 3 * 100**2 + 2000
    read = Scores.from_json(json.loads(text))
    assert read == got and (read.counted is None) == (classes > 100)
    path = got.pairs.write(tmp_path / "t.npz", task.classes)
    assert np.array_equal(load_npz(path).toarray(), matrix)
    with np.load(path, allow_pickle=False) as kept:
        assert kept["names"].tolist() == list(task.classes)
    assert path.stat().st_size < 20 * classes + 10_000


def test_scores_that_an_earlier_version_wrote_whole_are_read():
    task = Task(name="t", classes=tuple(f"class {i}" for i in range(150)))
    truth = np.arange(150)
    told = score(task, truth, answers(truth[::-1])).to_json()
    told["confusion"] = np.eye(150, dtype=int)[::-1].tolist()
    read = Scores.from_json(json.loads(json.dumps(told)))
    assert np.array_equal(read.counted.answered, np.ones(150))


def test_the_most_confused_classes_stand_side_by_side():
    truth = np.array([0] * 5 + [1] * 4 + [2] * 9 + [3] * 2 + [4])
    labels = np.array([3] * 5 + [1] * 4 + [4] * 2 + [2] * 7 + [3] * 2 + [0])
    confusion = score(Task(name="t", classes=tuple("abcde")), truth, answers(labels)).pairs
    # a as d five times, c as e twice, e as a once
    assert confusion.most_confused(2).tolist() == [0, 3]
    assert confusion.most_confused(4).tolist() == [0, 3, 2, 4]
    assert confusion.most_confused(5).tolist() == [0, 3, 2, 4, 1]
    assert confusion.matrix(np.array([3, 0])).tolist() == [[2, 0], [5, 0]]


@pytest.mark.parametrize("seed", range(3))
def test_multi_agrees_with_sklearn(seed):
    rng = np.random.default_rng(seed)
    task = Task(name="t", classes=tuple("abcd"), kind="multi")
    truth, labels = rng.random((200, 4)) < 0.3, rng.random((200, 4)) < 0.4
    got = score(task, truth, answers(labels))
    assert got.primary == "micro_f1"
    assert got.value == pytest.approx(sk.f1_score(truth, labels, average="micro"))
    assert got.metrics["macro_f1"] == pytest.approx(sk.f1_score(truth, labels, average="macro"))
    assert got.metrics["subset_accuracy"] == pytest.approx(sk.accuracy_score(truth, labels))


def test_multi_unreadable_row_is_never_right():
    task = Task(name="t", classes=("a", "b"), kind="multi")
    truth = np.array([[False, False], [True, False]])
    got = score(task, truth, answers(truth, invalid=[True, False]))
    assert got.metrics["subset_accuracy"] == 0.5
    assert got.value == 1.0  # no label was true or answered in the unreadable row


# The cases of seqeval's own README and tests, figures worked out by hand.
SEQ_TRUE = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
SEQ_PRED = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]


def flat(task: Task, tags: list[list[str]]) -> np.ndarray:
    return np.array([task.classes.index(tag) for text in tags for tag in text])


def test_slot_f1_of_the_seqeval_readme():
    task = Task(name="slots", classes=("O", "B-MISC", "I-MISC", "B-PER", "I-PER"), kind="tokens")
    got = score(task, flat(task, SEQ_TRUE), answers(flat(task, SEQ_PRED), offsets=[0, 7, 10]))
    assert got.primary == "slot_f1"
    assert got.value == pytest.approx(0.5)
    assert got.metrics["word_accuracy"] == pytest.approx(0.8)
    assert [(r.name, r.f1, r.support) for r in got.per_class] == [("MISC", 0, 1), ("PER", 1, 1)]
    assert got.metrics["macro_f1"] == pytest.approx(0.5)
    assert got.examples == 2


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["B-PER", "I-PER", "O", "B-LOC"], {("PER", 0, 1), ("LOC", 3, 3)}),
        (["B-PER", "B-PER"], {("PER", 0, 0), ("PER", 1, 1)}),
        (["I-PER", "I-PER"], {("PER", 0, 1)}),  # starts without B-
        (["B-PER", "I-LOC", "I-LOC"], {("PER", 0, 0), ("LOC", 1, 2)}),
        (["O", "I-LOC", "B-LOC", "I-LOC"], {("LOC", 1, 1), ("LOC", 2, 3)}),
        (["Other", "date", "date", "Other"], {("date", 1, 2)}),
        (["B-a-b", "I-a-b"], {("a-b", 0, 1)}),
        ([], set()),
    ],
)
def test_entities(tags, expected):
    assert entities(tags) == expected


def test_entities_do_not_run_across_texts_and_unread_words_are_outside():
    task = Task(name="slots", classes=("O", "B-x", "I-x"), kind="tokens")
    truth = np.array([1, 1, 2, 0])
    got = score(task, truth, answers([1, 1, -1, 0], offsets=[0, 1, 4], invalid=[False, True]))
    # text 1: (x, 0, 0) right; text 2: (x, 0, 1) true, (x, 0, 0) answered
    assert got.metrics["slot_f1"] == pytest.approx(2 * 1 / 4)
    assert got.metrics["word_accuracy"] == 0.75
    assert got.invalid_rate == 0.5


def test_other_length_than_the_truth_is_refused():
    with pytest.raises(UnsupportedError, match="3 labelled texts but 2"):
        score(ABC, np.array([0, 1, 2]), answers([0, 1]))


def test_ece_by_hand():
    # .95, .97 and 1 lie in the last of 15 bins, (14/15, 1]; .3 in the fifth
    confidence = np.array([0.95, 0.97, 0.30, 1.0])
    correct = np.array([True, False, False, True])
    bins = reliability(confidence, correct)
    last = (0.95 + 0.97 + 1.0) / 3
    assert bins.ece == pytest.approx((3 * abs(last - 2 / 3) + 0.30) / 4)
    assert sum(bins.counts) == 4 and bins.counts[14] == 3 and bins.counts[4] == 1


def test_ece_of_scores_is_that_of_the_answered_class():
    scores = [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1]]
    got = score(ABC, np.array([0, 0]), answers([0, 1], scores=scores))
    assert got.metrics["ece"] == pytest.approx((0.2 + 0.7) / 2, abs=1e-6)


def test_collapse_is_named_only_where_the_truth_varies():
    assert score(ABC, np.array([0, 1, 2]), answers([1, 1, 1])).collapsed == "b"
    assert score(ABC, np.array([0, 1, 2]), answers([1, -1, 1])).collapsed == "b"
    assert score(ABC, np.array([1, 1, 1]), answers([1, 1, 1])).collapsed is None
    multi = Task(name="t", classes=("a", "b"), kind="multi")
    truth = np.array([[True, False], [False, True]])
    assert score(multi, truth, answers(np.zeros((2, 2), dtype=bool))).collapsed == "nothing"
    assert score(multi, truth, answers(truth)).collapsed is None


def test_scores_survive_json():
    scores = [[0.8, 0.1, 0.1], [0.2, 0.7, 0.1]]
    got = score(ABC, np.array([0, 0]), answers([0, 1], scores=scores))
    assert Scores.from_json(json.loads(json.dumps(got.to_json()))) == got


def test_bootstrap_matches_the_binomial_and_is_seeded():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 2000)
    labels = np.where(rng.random(2000) < 0.9, truth, (truth + 1) % 3)
    accuracy = (labels == truth).mean()
    interval = bootstrap_interval(ABC, truth, answers(labels), seed=3)
    half = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 2000)
    assert interval.low == pytest.approx(accuracy - half, abs=0.002)
    assert interval.high == pytest.approx(accuracy + half, abs=0.002)
    assert interval == bootstrap_interval(ABC, truth, answers(labels), seed=3)
    assert interval != bootstrap_interval(ABC, truth, answers(labels), seed=4)


def test_bootstrap_parts_give_the_primary_metric():
    slots = Task(name="s", classes=("O", "B-x", "I-x"), kind="tokens")
    rng = np.random.default_rng(1)
    truth, labels = rng.integers(0, 3, 60), rng.integers(0, 3, 60)
    said = answers(labels, offsets=np.arange(0, 61, 6))
    above, below = primary_parts(slots, truth, said)
    assert len(above) == 10
    assert above.sum() / below.sum() == pytest.approx(score(slots, truth, said).value)
    interval = bootstrap_interval(slots, truth, said)
    assert interval.low < score(slots, truth, said).value < interval.high


def test_bootstrap_of_a_perfect_answer_has_no_width():
    interval = bootstrap_interval(ABC, np.array([0, 1, 2]), answers([0, 1, 2]))
    assert (interval.low, interval.high) == (1.0, 1.0)
