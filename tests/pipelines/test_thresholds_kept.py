"""The threshold for ``unknown`` beside a classifier, of this version and of earlier ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from topic_files import text_of, write_csv

from llmembed.contract import Prediction, Task
from llmembed.errors import ConfigError
from llmembed.evaluation import Result, promise
from llmembed.evaluation.selective import answered_when_sure
from llmembed.pipelines.predict import predict
from llmembed.pipelines.sidecars import offered_thresholds, read_thresholds, write_thresholds

TASK = Task(name="topic", classes=("a", "b"))


def result_of(texts: int) -> Result:
    """Of a classifier that is right on all ``texts`` validation and test texts."""
    labels = np.zeros(texts, dtype=np.int64)
    scores = np.tile(np.array([[0.75, 0.25]], dtype=np.float32), (texts, 1))
    answers = Prediction(labels=labels, scores=scores, invalid=np.zeros(texts, dtype=bool))
    told = (labels, answers)
    selective = {"topic": answered_when_sure(TASK, told, told, 0.99, 0.95)}
    return Result(method="m", label="m", seed=0, corpus="c", digest="d", selective=selective)


def test_a_promise_is_kept_beside_the_classifier(tmp_path: Path) -> None:
    result = result_of(300)
    write_thresholds(tmp_path, result)
    assert offered_thresholds(tmp_path) == {"topic": 0.75}
    values, said = read_thresholds(tmp_path)
    assert values == {"topic": 0.75}
    assert said == [f"topic: {promise(result.selective['topic'])}"]
    assert "with confidence 0.95; on test 100.0 % of the texts are answered" in said[0]


def test_where_nothing_can_be_promised_the_reason_is_told(tmp_path: Path) -> None:
    write_thresholds(tmp_path, result_of(100))
    assert offered_thresholds(tmp_path) == {}
    with pytest.raises(ConfigError, match="task 'topic': 100 validation texts are too few"):
        read_thresholds(tmp_path)


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    place = tmp_path / "thresholds.json"
    place.write_text(json.dumps({"topic": {"unknown_below": 0.6, "wanted_precision": 0.99}}))
    values, said = read_thresholds(tmp_path)
    assert values == offered_thresholds(tmp_path) == {"topic": 0.6}
    assert "promises none elsewhere" in said[0]
    place.write_text(json.dumps({"topic": {"unknown_below": None, "wanted_precision": 0.99}}))
    assert offered_thresholds(tmp_path) == {}
    with pytest.raises(ConfigError, match="on validation no threshold gave"):
        read_thresholds(tmp_path)


def test_predict_says_what_the_threshold_promises(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_csv(tmp_path / "a.csv", range(3))
    settings = {"data": [str(data)], "text_column": "body", "local": True}
    output = str(tmp_path / "labels.jsonl")
    with pytest.raises(ConfigError, match="holds no chosen threshold"):
        predict(model=model, output=output, unknown_below="chosen", **settings)
    kept = tmp_path / "kept"
    kept.mkdir()
    for path in Path(model).iterdir():
        (kept / path.name).write_bytes(path.read_bytes())
    write_thresholds(kept, result_of(300))
    predict(model=str(kept), output=output, unknown_below="chosen", **settings)
    told = " ".join(capsys.readouterr().out.split())
    assert "topic: `unknown` below 0.7500 promises a precision of 0.99" in told
    rows = [json.loads(line) for line in Path(output).read_text().splitlines()]
    assert [row["text"] for row in rows] == [text_of(row) for row in range(3)]
