"""Every metric by name: against scikit-learn, at its edges, and as an interval."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sk

from llmembed.contract import Prediction, Task
from llmembed.errors import ConfigError, UnsupportedError
from llmembed.evaluation import bootstrap_interval, score
from llmembed.metrics import check_metric, judged_by, known, shown_name
from llmembed.metrics.measuring import figures, recall_at_precision, value

ABC = Task(name="topic", classes=("a", "b", "c"))
SEVERAL = Task(name="tags", classes=tuple("abcd"), kind="multi")
SLOTS = Task(name="slots", classes=("O", "B-x", "I-x", "B-y"), kind="tokens")
COSTS = ((0.0, 1.0, 5.0), (2.0, 0.0, 1.0), (1.0, 1.0, 0.0))


def single(seed: int, count: int = 300) -> tuple[np.ndarray, Prediction]:
    rng = np.random.default_rng(seed)
    truth = rng.choice(3, count, p=(0.7, 0.2, 0.1))
    scores = rng.dirichlet((1, 1, 1), count).astype(np.float32)
    scores[np.arange(count), truth] += 0.5
    scores /= scores.sum(axis=1, keepdims=True)
    labels = scores.argmax(axis=1)
    return truth, Prediction(labels=labels, scores=scores, invalid=np.zeros(count, dtype=bool))


def several(seed: int, count: int = 200) -> tuple[np.ndarray, Prediction]:
    rng = np.random.default_rng(seed)
    truth = rng.random((count, 4)) < (0.5, 0.3, 0.1, 0.05)
    scores = np.clip(rng.random((count, 4)) * 0.6 + 0.3 * truth, 0, 1).astype(np.float32)
    none = np.zeros(count, dtype=bool)
    return truth, Prediction(labels=scores >= 0.5, scores=scores, invalid=none)


def words(seed: int) -> tuple[np.ndarray, Prediction]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, 120)
    labels = np.where(rng.random(120) < 0.6, truth, rng.integers(0, 4, 120))
    offsets = np.arange(0, 121, 6)
    none = np.zeros(20, dtype=bool)
    return truth, Prediction(labels=labels, scores=None, invalid=none, offsets=offsets)


def of(task: Task, metric: str, given: tuple[np.ndarray, Prediction]) -> float:
    return value(replace(task, metric=metric), *given)


@pytest.mark.parametrize("seed", range(3))
def test_single_is_scikit_learns(seed):
    given = truth, said = single(seed)
    labels, shares = said.labels, said.scores.astype(np.float64)
    expected = {
        "accuracy": sk.accuracy_score(truth, labels),
        "macro_f1": sk.f1_score(truth, labels, average="macro"),
        "weighted_f1": sk.f1_score(truth, labels, average="weighted"),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, labels),
        "mcc": sk.matthews_corrcoef(truth, labels),
        "log_loss": -sk.log_loss(truth, shares / shares.sum(axis=1, keepdims=True)),
    }
    for metric, right in expected.items():
        assert of(ABC, metric, given) == pytest.approx(right, abs=1e-6), metric
    recalls = []
    for label in range(3):
        precision, recall, _ = sk.precision_recall_curve(truth == label, said.scores[:, label])
        recalls.append(recall[precision >= 0.9].max())
    assert of(ABC, "recall_at_precision_0.9", given) == pytest.approx(np.mean(recalls))


@pytest.mark.parametrize("seed", range(3))
def test_several_labels_are_scikit_learns(seed):
    given = truth, said = several(seed)
    labels, scores = said.labels, said.scores.astype(np.float64)
    expected = {
        "subset_accuracy": sk.accuracy_score(truth, labels),
        "ranking_precision": sk.label_ranking_average_precision_score(truth, scores),
        "coverage_error": -sk.coverage_error(truth, scores),
        "log_loss": -np.mean([sk.log_loss(truth[:, c], scores[:, c]) for c in range(4)]),
    }
    for mean in ("micro", "macro", "weighted"):
        expected[f"{mean}_f1"] = sk.f1_score(truth, labels, average=mean)
    for metric, right in expected.items():
        assert of(SEVERAL, metric, given) == pytest.approx(right, abs=1e-6), metric


def test_every_name_fits_its_kind_and_is_what_score_says():
    tasks = {
        "single": (replace(ABC, costs=COSTS), single(0)),
        "multi": (SEVERAL, several(0)),
        "tokens": (SLOTS, words(0)),
    }
    for kind, (task, given) in tasks.items():
        for metric in known(kind):
            named = replace(task, metric=metric)
            check_metric(named)
            assert score(named, *given).value == value(named, *given), metric
            assert score(named, *given).primary == metric


def test_a_cost_is_read_off_its_table_and_less_is_better():
    truth, labels = np.array([0, 0, 1, 2, 2]), np.array([0, 2, 0, 2, -1])
    said = Prediction(labels=labels, scores=None, invalid=labels < 0)
    task = replace(ABC, metric="cost", costs=COSTS)
    # right; a for c 5; b for a 2; right; unreadable: the dearest mistake with a c, 1
    assert value(task, truth, said) == pytest.approx(-(0 + 5 + 2 + 0 + 1) / 5)
    got = score(task, truth, said)
    assert got.metrics["cost"] == pytest.approx(8 / 5) and got.value == pytest.approx(-8 / 5)
    assert shown_name("cost") == "-cost" and shown_name("macro_f1") == "macro f1"


def test_an_unreadable_answer_is_wrong_under_every_metric():
    truth, said = single(1)
    unread = replace(said, invalid=np.arange(300) < 30)
    for metric in known("single"):
        task = replace(ABC, metric=metric, costs=COSTS)
        assert value(task, truth, unread) < value(task, truth, said), metric
    as_a_class = np.where(unread.invalid, 3, said.labels)
    right = sk.matthews_corrcoef(truth, as_a_class)
    assert of(ABC, "mcc", (truth, unread)) == pytest.approx(right)


def test_recall_at_a_precision_tells_equal_scores_together():
    truth = np.array([1, 1, 0, 1, 0, 0])
    scores = np.array([[0.1, 0.9], [0.2, 0.8], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3], [0.9, 0.1]])
    # class 1: at .9 one of three with precision 1, at .8 two of three with 2/3, at .6 all with 3/4
    # class 0: at .7 and .9 two of three with precision 1, at .2 all with 3/5
    assert recall_at_precision(truth, scores, 1.0) == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert recall_at_precision(truth, scores, 0.75) == pytest.approx((1 + 2 / 3) / 2)
    assert recall_at_precision(np.array([0, 1]), np.array([[0.1, 0.9], [0.9, 0.1]]), 0.9) == 0


def test_what_needs_scores_says_so_where_there_are_none():
    truth, said = single(0)
    blind = replace(said, scores=None)
    assert "log_loss" not in figures(ABC, truth, blind)
    for metric in ("log_loss", "recall_at_precision_0.5"):
        with pytest.raises(UnsupportedError, match=f"judged by {metric}, which needs scores"):
            score(replace(ABC, metric=metric), truth, blind)


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (replace(ABC, metric="micro_f1"), "'topic' of kind 'single'.* accuracy, macro_f1"),
        (replace(SEVERAL, metric="accuracy"), "kind 'multi', which can be judged by micro_f1"),
        (replace(SEVERAL, metric="recall_at_precision_0.9"), "kind 'multi'"),
        (replace(ABC, metric="recall_at_precision_0"), "judged by"),
        (replace(ABC, metric="recall_at_precision_1.5"), "judged by"),
        (replace(ABC, metric="cost"), "give costs: {topic: "),
        (replace(SEVERAL, costs=COSTS), "'tags' is of kind 'multi'"),
    ],
)
def test_what_does_not_fit_is_refused(task, said):
    with pytest.raises(ConfigError, match=said):
        check_metric(task)


def test_values_of_other_costs_have_another_name():
    task = replace(ABC, metric="cost", costs=COSTS)
    other = replace(task, costs=(COSTS[0], COSTS[1], (3.0, 1.0, 0.0)))
    assert judged_by(task) == judged_by(replace(task)) != judged_by(other)
    assert judged_by(ABC) == judged_by(replace(ABC, metric="accuracy")) == "accuracy"


def test_one_answer_to_everything_is_no_collapse_where_ranking_or_costs_count():
    truth, said = single(0)
    same = replace(said, labels=np.zeros(300, dtype=np.int64))
    assert score(ABC, truth, same).collapsed == "a"
    assert score(replace(ABC, metric="recall_at_precision_0.9"), truth, same).collapsed is None
    assert score(replace(ABC, metric="cost", costs=COSTS), truth, same).collapsed is None


@pytest.mark.parametrize("kind", ["single", "multi", "tokens"])
def test_every_metric_has_an_interval_around_its_value(kind):
    task, given = {
        "single": (replace(ABC, costs=COSTS), single(2)),
        "multi": (SEVERAL, several(2)),
        "tokens": (SLOTS, words(2)),
    }[kind]
    for metric in known(kind):
        named = replace(task, metric=metric)
        interval = bootstrap_interval(named, *given, resamples=200)
        whole = value(named, *given)
        assert interval.low < whole < interval.high, metric
        assert interval == bootstrap_interval(named, *given, resamples=200)


def test_an_interval_drawn_anew_is_that_of_the_ratio():
    """Balanced accuracy over classes of equal size, drawn apart, is nearly accuracy."""
    rng = np.random.default_rng(0)
    truth = np.arange(3000) % 3
    labels = np.where(rng.random(3000) < 0.9, truth, (truth + 1) % 3)
    said = Prediction(labels=labels, scores=None, invalid=np.zeros(3000, dtype=bool))
    plain = bootstrap_interval(ABC, truth, said)
    balanced = bootstrap_interval(replace(ABC, metric="balanced_accuracy"), truth, said)
    assert balanced.low == pytest.approx(plain.low, abs=0.003)
    assert balanced.high == pytest.approx(plain.high, abs=0.003)


def test_a_task_survives_json_and_an_old_one_is_read():
    for task in (
        ABC,
        replace(ABC, metric="cost", costs=COSTS),
        replace(SEVERAL, metric="macro_f1", thresholds=(0.1, 0.2, 0.3, 0.4)),
    ):
        assert Task.from_json(task.to_json()) == task
    assert ABC.to_json() == {"name": "topic", "classes": ["a", "b", "c"], "kind": "single"}
