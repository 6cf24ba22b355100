"""Two classifiers on the same texts."""

from __future__ import annotations

import json

import numpy as np

from llmembed.contract import Prediction, Task
from llmembed.evaluation.paired import Told, all_right, compare_paired, mcnemar


def told(right, rows=None):
    right = np.asarray(right, dtype=bool)
    return Told(rows=np.arange(len(right)) if rows is None else np.asarray(rows), right=right)


def test_equals_are_rarely_called_different():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        hard = rng.random(200)  # both find the same texts hard
        a, b = (told(rng.random(200) < 0.6 + 0.4 * hard) for _ in range(2))
        found = compare_paired("b", a, b)
        assert found is not None
        alarms += found.distinct
    assert alarms <= 0.05 * 400 + 12


def test_a_real_difference_is_seen_where_single_intervals_overlap():
    rng = np.random.default_rng(0)
    right = rng.random(1000) < 0.9
    better = right.copy()
    better[np.flatnonzero(~right)[:20]] = True
    found = compare_paired("b", told(better), told(right))
    assert found is not None
    assert (found.only_winner, found.only_other) == (20, 0)
    assert found.p == 2 * 0.5**20
    assert found.distinct


def test_by_the_texts_that_both_were_asked_about():
    ours, theirs = told([1, 1, 0, 0], rows=[1, 3, 5, 7]), told([0, 1, 1], rows=[3, 5, 9])
    found = compare_paired("b", ours, theirs)
    assert found is not None
    assert (found.texts, found.only_winner, found.only_other) == (2, 1, 1)
    assert compare_paired("b", told([1]), told([1], rows=[4])) is None


def test_kept_in_a_file_and_read_again():
    rng = np.random.default_rng(0)
    for rows in (np.arange(100, 117), np.sort(rng.choice(1000, 300, replace=False)), np.array([])):
        before = told(rng.random(len(rows)) < 0.5, rows=rows.astype(int))
        after = Told.from_json(json.loads(json.dumps(before.to_json())))
        np.testing.assert_array_equal(before.rows, after.rows)
        np.testing.assert_array_equal(before.right, after.right)


def test_no_difference_at_all_is_certain_to_be_chance():
    assert mcnemar(0, 0) == 1


def test_a_text_is_right_when_all_of_it_is():
    single = Task(name="topic", classes=("a", "b"))
    multi = Task(name="tags", classes=("a", "b"), kind="multi")
    tokens = Task(name="slots", classes=("O", "B-x"), kind="tokens")
    no = np.zeros(3, dtype=bool)
    predictions = {
        "topic": Prediction(labels=np.array([0, 1, 1]), scores=None, invalid=no),
        "tags": Prediction(
            labels=np.array([[1, 0], [1, 1], [0, 0]], dtype=bool), scores=None, invalid=no
        ),
        "slots": Prediction(
            labels=np.array([0, 1, 0, 0, 1]),
            scores=None,
            invalid=no,
            offsets=np.array([0, 2, 3, 5]),
        ),
    }
    labels = {
        "topic": np.array([0, 1, 0]),
        "tags": np.array([[1, 0], [0, 1], [0, 0]], dtype=bool),
        "slots": np.array([0, 1, 0, 1, 1]),
    }
    each = [all_right([task], labels, predictions).tolist() for task in (single, multi, tokens)]
    assert each == [[True, True, False], [True, False, True], [True, True, False]]
    assert all_right([single, multi, tokens], labels, predictions).tolist() == [True, False, False]
    unread = {"topic": Prediction(labels=np.array([0]), scores=None, invalid=np.array([True]))}
    assert all_right([single], {"topic": np.array([0])}, unread).tolist() == [False]
