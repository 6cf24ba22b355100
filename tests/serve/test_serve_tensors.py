"""Answers of every kind as tensors and as vLLM has them: unread, without scores, of words."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from llmembed.contract import Prediction, Task
from serve.http.tensors import Tensor, outputs_of, texts_of_raw
from serve.routes.vllm import classified

SINGLE = Task(name="topic", classes=("oil", "grüne Woche"))
MULTI = Task(name="names", classes=("a", "b", "c"), kind="multi")
TOKENS = Task(name="tags", classes=("O", "B-crop"), kind="tokens")
SCORES = np.array([[0.25, 0.75], [0.5, 0.5]], dtype=np.float32)


def prediction(labels, scores=None, invalid=(False, False), offsets=None):
    return Prediction(
        labels=np.array(labels),
        scores=None if scores is None else np.asarray(scores, dtype=np.float32),
        invalid=np.array(invalid),
        offsets=None if offsets is None else np.array(offsets),
    )


def tensors(task, given, texts=("x y", "z")):
    seat = SimpleNamespace(tasks=(task,))
    found = outputs_of(SimpleNamespace(seat=seat, predictions={task.name: given}), list(texts))
    return {name: tensor.values for name, tensor in found.items()}


def test_single():
    found = tensors(SINGLE, prediction([1, -1], SCORES, invalid=[False, True]))
    assert found["label"] == ["grüne Woche", ""]
    assert found["score"].tolist() == [0.75, 0.5]
    assert np.array_equal(found["probs"], SCORES)


def test_a_method_without_scores_has_neither_score_nor_probs():
    assert set(tensors(SINGLE, prediction([1, 0]))) == {"label"}
    assert set(tensors(MULTI, prediction([[True, False, True], [False] * 3]))) == {"label"}


def test_multi():
    scores = [[0.75, 0.25, 0.5], [0.1, 0.2, 0.3]]
    found = tensors(MULTI, prediction([[True, False, True], [False] * 3], scores))
    assert [json.loads(labels) for labels in found["label"]] == [["a", "c"], []]
    assert set(found) == {"label", "probs"}


def test_tokens():
    scores = [[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]]
    found = tensors(TOKENS, prediction([0, 1, -1], scores, offsets=[0, 2, 3]))
    assert [json.loads(tags) for tags in found["label"]] == [["O", "B-crop"], [None]]
    words = [json.loads(words) for words in found["words"]]
    assert [[word["word"] for word in row] for row in words] == [["x", "y"], ["z"]]
    assert words[0][1] == {
        "entity": "B-crop",
        "score": 0.75,
        "index": 1,
        "word": "y",
        "start": 2,
        "end": 3,
    }


def test_raw_is_what_the_protocol_says():
    assert Tensor(name="label", values=["ü", ""]).raw() == b"\2\0\0\0\xc3\xbc\0\0\0\0"
    assert texts_of_raw(b"\2\0\0\0\xc3\xbc\0\0\0\0") == ["ü", ""]
    assert Tensor(name="score", values=np.array([0.5])).raw() == b"\0\0\0\x3f"
    assert Tensor(name="probs", values=SCORES).shape == [2, 2]


@pytest.mark.parametrize(
    ("task", "given", "label", "probs"),
    [
        (SINGLE, prediction([1, 0], SCORES), "grüne Woche", [0.25, 0.75]),
        (SINGLE, prediction([1, 0]), "grüne Woche", None),
        (SINGLE, prediction([-1, 0], invalid=[True, False]), None, None),
        (MULTI, prediction([[False] * 3] * 2, [[0.1, 0.3, 0.2]] * 2), "b", [0.1, 0.3, 0.2]),
        (MULTI, prediction([[False, False, True]] * 2), "c", None),
        (MULTI, prediction([[False] * 3] * 2), None, None),
    ],
)
def test_classified(task, given, label, probs):
    found = classified(task, given, 0)
    assert found["label"] == label
    assert found["probs"] == (None if probs is None else pytest.approx(probs))
    assert found["num_classes"] == len(task.classes)
