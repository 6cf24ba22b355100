"""An answer that costs decided stands first, whatever the largest score."""

from __future__ import annotations

import numpy as np

from llmembed.contract import Prediction, Task
from llmembed.pipelines.predict.labeller import answers
from serve.http.answers import labels_of

TASK = Task(name="spam", classes=("ham", "spam"), costs=((0.0, 9.0), (1.0, 0.0)))
SAID = Prediction(
    labels=np.array([0, 1]),
    scores=np.array([[0.25, 0.75], [0.0625, 0.9375]], dtype=np.float32),
    invalid=np.zeros(2, dtype=bool),
)


def test_the_answer_stands_first_and_its_own_score_is_held_against_the_threshold() -> None:
    first = labels_of(TASK, SAID, 0, "a text")
    assert [(each["label"], each["score"]) for each in first] == [("ham", 0.25), ("spam", 0.75)]
    assert labels_of(TASK, SAID, 1, "a text")[0] == {"label": "spam", "score": 0.9375}
    unsure = labels_of(TASK, SAID, 0, "a text", unknown_below=0.5)
    assert unsure[0] == {"label": "unknown", "score": 0.25, "abstained": True}


def test_predict_writes_the_answers_own_score() -> None:
    columns = answers(TASK, SAID, alone=True, scores=False, unknown_below=0.5)
    assert columns["label"].to_pylist() == ["unknown", "spam"]
    assert columns["score"].to_pylist() == [0.25, 0.9375]
    assert columns["abstained"].to_pylist() == [True, False]
