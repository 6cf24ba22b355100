"""From a classifier's answers to output columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from llmembed.contract import Prediction, Task
from llmembed.pipelines.predict.labeller import answer_columns, answers

TOPIC = Task(name="topic", classes=("oil", "grain", "money"))
SCORES = np.array([[0.7, 0.2, 0.1], [0.4, 0.3, 0.3], [0.0, 0.0, 0.0]], np.float32)


def single(**changes: object) -> dict[str, list[object]]:
    prediction = Prediction(
        labels=np.array([0, 0, -1]), scores=SCORES, invalid=np.array([False, False, True])
    )
    settings = {"alone": True, "scores": False, "unknown_below": None} | changes
    columns = answers(TOPIC, prediction, **settings)  # type: ignore[arg-type]
    return {name: column.to_pylist() for name, column in columns.items()}


def test_an_answer_that_could_not_be_read_is_null() -> None:
    assert single()["label"] == ["oil", "oil", None]


def test_below_the_threshold_the_answer_is_unknown() -> None:
    columns = single(unknown_below=0.5)
    # An answer that could not be read is no doubt: its label stays empty.
    assert columns["label"] == ["oil", "unknown", None]
    assert columns["abstained"] == [False, True, False]
    assert "abstained" not in single()


def test_a_class_called_unknown_is_told_from_an_abstention() -> None:
    task = Task(name="topic", classes=("unknown", "grain", "money"))
    prediction = Prediction(
        labels=np.array([0, 0]), scores=SCORES[:2], invalid=np.array([False, False])
    )
    columns = answers(task, prediction, alone=False, scores=True, unknown_below=0.5)
    assert columns["topic_label"].to_pylist() == ["unknown", "unknown"]
    assert columns["topic_abstained"].to_pylist() == [False, True]
    assert columns["topic_score:grain"].to_pylist() == SCORES[:2, 1].tolist()
    assert list(columns) == answer_columns(task, alone=False, scores=True, abstains=True)


def test_columns_are_named_by_task_when_there_are_several() -> None:
    columns = single(alone=False, scores=True)
    assert list(columns) == [
        "topic_label",
        "topic_score",
        "topic_score:oil",
        "topic_score:grain",
        "topic_score:money",
    ]
    assert columns["topic_score:grain"] == SCORES[:, 1].tolist()


def test_several_labels_are_a_list_of_strings_even_when_nobody_has_any() -> None:
    task = Task(name="topics", classes=("oil", "grain", "money"), kind="multi")
    labels = np.array([[True, False, True], [False, False, False]])
    prediction = Prediction(labels=labels, scores=SCORES[:2], invalid=np.zeros(2, bool))
    columns = answers(task, prediction, alone=True, scores=False, unknown_below=0.9)
    assert columns["label"].to_pylist() == [["oil", "money"], []]
    empty = Prediction(labels=labels[1:], scores=None, invalid=np.zeros(1, bool))
    alone = answers(task, empty, alone=True, scores=False, unknown_below=None)
    assert alone["label"].type == columns["label"].type == pa.list_(pa.string())


def test_word_tags_are_gathered_by_text() -> None:
    task = Task(name="slots", classes=("O", "B-x"), kind="tokens")
    prediction = Prediction(
        labels=np.array([0, 1, 0]),
        scores=np.array([[0.9, 0.1], [0.25, 0.75], [1.0, 0.0]], np.float32),
        invalid=np.zeros(2, bool),
        offsets=np.array([0, 2, 3]),
    )
    columns = answers(task, prediction, alone=True, scores=False, unknown_below=None)
    assert columns["label"].to_pylist() == [["O", "B-x"], ["O"]]
    assert columns["score"].to_pylist()[0][1] == 0.75
