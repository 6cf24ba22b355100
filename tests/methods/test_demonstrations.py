"""Which training texts a prompt shows."""

from __future__ import annotations

import numpy as np
import pytest
from newsroom import TOPIC, news

from llmembed.contract import Examples, Task
from llmembed.embeddings import embed
from llmembed.errors import ConfigError
from llmembed.methods.demonstrations import Demonstrations, balanced_rows, gather

SLOTS = Task(name="slots", classes=("O", "B-x"), kind="tokens")


@pytest.mark.parametrize(("k", "counts"), [(3, {1}), (7, {2, 3}), (9, {3})])
def test_random_ones_are_balanced_though_classes_are_not(k, counts):
    labels = np.array([0] * 80 + [1] * 15 + [2] * 5)
    train = Examples(texts=[str(i) for i in range(100)], labels={"topic": labels})
    rows = balanced_rows([TOPIC], train, k, seed=3)
    assert len(set(rows)) == k
    assert set(np.bincount(labels[rows], minlength=3)) == counts
    assert balanced_rows([TOPIC], train, k, seed=3) == rows
    assert balanced_rows([TOPIC], train, k, seed=4) != rows


def test_a_small_class_gives_what_it_has_and_others_fill_up():
    labels = np.array([0] * 20 + [1])
    train = Examples(texts=[str(i) for i in range(21)], labels={"topic": labels})
    rows = balanced_rows([TOPIC], train, 6, seed=0)
    assert np.bincount(labels[rows]).tolist() == [5, 1]
    assert len(balanced_rows([TOPIC], train, 99, seed=0)) == 21


def test_random_ones_are_the_same_for_every_text(runtime):
    found, usage = gather("random", 4, [TOPIC], news(30), view=None, seed=1, runtime=runtime)
    rows, took = found.choose(["a", "b"], None)
    assert rows[0] == rows[1] == [0, 1, 2, 3]
    assert len(found.pool) == 4
    assert usage == took == type(usage)()


def test_nearest_are_those_of_brute_force_nearest_last(view, runtime):
    train, test = news(60), news(11, seed=5)
    found, usage = gather("nearest", 5, [TOPIC], train, view=view, seed=0, runtime=runtime)
    rows, took = found.choose(test.texts, runtime)
    (place,) = view.indices()
    vectors = [
        np.float32(embed(view.backbone, each.texts, runtime).vectors[:, place])
        for each in (train, test)
    ]
    ours, theirs = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in vectors)
    near = theirs @ ours.T
    for row, shown in enumerate(rows):
        expected = np.sort(near[row])[-5:]
        np.testing.assert_allclose(near[row, shown], expected, atol=1e-6)
        assert (np.diff(near[row, shown]) >= 0).all(), "nearest last"
    assert usage.tokens > 60
    assert took.tokens > 11
    np.testing.assert_array_equal(found.choose(test.texts, None)[0], rows)


def test_no_more_than_there_are_and_none_for_no_texts(view, runtime):
    found, _ = gather("nearest", 9, [TOPIC], news(4), view=view, seed=0, runtime=runtime)
    assert sorted(found.choose(["oil price"], runtime)[0][0]) == [0, 1, 2, 3]
    assert found.choose([], runtime)[0] == []


def test_none_needs_nothing(runtime):
    for kind, k in (("none", 5), ("nearest", 0)):
        found, usage = gather(kind, k, [TOPIC], news(9), view=None, seed=0, runtime=runtime)
        assert found.choose(["a"], None)[0] == [[]]
        assert usage.seconds == 0


def test_what_can_not_be_asked_for(runtime):
    for kind, k, said in (
        ("nearest", 3, "need a view"),
        ("best", 3, "'best'"),
        ("random", -1, "-1"),
    ):
        with pytest.raises(ConfigError, match=said):
            gather(kind, k, [TOPIC], news(9), view=None, seed=0, runtime=runtime)


def test_saved_and_loaded_words_included(tmp_path, view, runtime):
    train = Examples(
        texts=["a b", "c"],
        labels={"topic": np.array([0, 1]), "slots": np.array([0, 1, 1])},
        words=[["a", "b"], ["c"]],
    )
    found, _ = gather("nearest", 2, [TOPIC, SLOTS], train, view=view, seed=0, runtime=runtime)
    found.save(tmp_path)
    loaded = Demonstrations.load(tmp_path, found.arrays())
    assert loaded.pool.words == [["a", "b"], ["c"]]
    np.testing.assert_array_equal(loaded.pool.labels["slots"], [0, 1, 1])
    assert loaded.choose(["oil"], None)[0] == found.choose(["oil"], None)[0]
