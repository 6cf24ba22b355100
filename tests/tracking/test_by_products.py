"""What a run keeps of a fit of many classes, and of one whose pictures can't be kept."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
from scipy.sparse import load_npz

from llmembed.contract import Examples, Prediction, Task, Usage
from llmembed.evaluation import Result, score
from llmembed.pipelines.compare.recording import log_result
from llmembed.texts import Corpus
from llmembed.tracking import Run, Tracking

N = 120
TASK = Task(name="topic", classes=tuple(f"class {i}" for i in range(N)))
TRUTH = np.arange(3 * N) % N
LABELS = np.where(np.arange(3 * N) < N, TRUTH[::-1], TRUTH)


@pytest.fixture
def result() -> Result:
    answers = Prediction(labels=LABELS, scores=None, invalid=np.zeros(3 * N, dtype=bool))
    scores = {"topic": score(TASK, TRUTH, answers)}
    usage = Usage(seconds=2.0, core_seconds=7.5)
    return Result(
        method="m", label="m", seed=0, corpus="c", digest="d", valid=scores, fit_usage=usage
    )


@pytest.fixture
def corpus() -> Corpus:
    rows = Examples(texts=["a"] * (3 * N), labels={"topic": TRUTH})
    return Corpus(name="c", tasks=(TASK,), train=rows, valid=rows, test=None, digest="d")


def folder_of(run: Run) -> Path:
    folder = Path(urlparse(run.client.get_run(run.id).info.artifact_uri).path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_the_matrix_of_many_classes_is_an_artifact(
    tracking: Tracking, result: Result, corpus: Corpus
) -> None:
    with tracking.run("fit") as run:
        log_result(run, result, corpus, pictures=True)
    kept = folder_of(run)
    found = load_npz(kept / "confusion" / "topic.npz").toarray()
    expected = np.zeros((N, N), dtype=int)
    np.add.at(expected, (TRUTH, LABELS), 1)
    assert np.array_equal(found, expected)
    assert (kept / "figures" / "topic_confusion.png").is_file()
    told = json.loads((kept / "result.json").read_text())
    assert told["valid"]["topic"]["confusion"] is None
    metrics = run.client.get_run(run.id).data.metrics
    assert (metrics["seconds"], metrics["core_seconds"]) == (2.0, 7.5)


def test_what_can_not_be_kept_is_said_and_the_result_stays(
    tracking: Tracking, result: Result, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    with tracking.run("fit") as run:
        for name in ("figures", "confusion"):  # a file stands where the folder should
            (folder_of(run) / name).write_text("in the way")
        log_result(run, result, corpus, pictures=True)
    told = " ".join(capsys.readouterr().out.split())
    assert "the confusion picture of 'topic' was not kept: " in told
    assert "the confusion matrix of 'topic' was not kept: " in told
    assert (folder_of(run) / "result.json").is_file()
    found = run.client.get_run(run.id)
    assert found.info.status == "FINISHED"
    assert found.data.metrics["valid_mean"] == pytest.approx(result.valid_value())
