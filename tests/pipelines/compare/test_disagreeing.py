"""Test texts of another kind than those trained on: the leaderboard says so, and in what."""

from __future__ import annotations

import csv
import json

import pytest

from llmembed.experiment import load_experiment

TOPICS = {
    "grain": ["the wheat harvest", "corn exports", "the barley crop", "soybean farmers"],
    "ships": ["the tanker", "port workers", "the cargo vessel", "a container ship"],
}
OTHERS = {
    "grain": ["paddy yields", "rye mills", "oats traders", "maize silos"],
    "ships": ["ferry crews", "a trawler", "dock cranes", "the lighter fleet"],
}


def write(path, subjects, rows: int, *, other_meaning: int = 0) -> str:
    """Of every ten rows ``other_meaning`` bear the other label."""
    first, second = subjects
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(rows):
            topic, rest = (first, second) if row % 2 else (second, first)
            subject = subjects[topic][row // 2 % 4]
            label = rest if row % 10 < other_meaning else topic
            writer.writerow([f"{subject} in week {row} of the year", label])
    return str(path)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    from llmembed.pipelines.compare import compare

    folder = tmp_path_factory.mktemp("shifted")
    experiment = load_experiment(
        "compare",
        changes={
            "data.source": write(folder / "news.csv", TOPICS, 200),
            "data.test": write(folder / "later.csv", OTHERS, 120, other_meaning=4),
            "data.valid_fraction": 0.2,
            "runtime.files": str(folder / "files"),
            "runtime.local": True,
            "seeds": 1,
        },
        only=["probe"],
    )
    return folder, compare(experiment, json_path=str(folder / "figures.json"))


def test_it_is_printed_stored_and_shown_again(compared, capfd):
    from llmembed.pipelines.compare import report

    folder, result = compared
    said = result.leaderboard.disagreement
    assert said.shift.words.auc > 0.9
    assert said.shift.embeddings.auc > 0.9
    assert said.shift.embeddings.texts == 120
    written = json.loads((folder / "figures.json").read_text())["disagreement"]
    assert written == json.loads(json.dumps(said.to_json()))
    report(None, files=str(folder / "files"))
    shown = " ".join(capfd.readouterr().out.split())
    for line in said.lines():
        assert " ".join(line.split()) in shown


def test_it_is_on_the_run(compared):
    from mlflow import MlflowClient

    folder, result = compared
    client = MlflowClient(f"sqlite:///{folder}/files/mlflow.db")
    [experiment] = [e for e in client.search_experiments() if e.name == "news"]
    runs = client.search_runs([experiment.experiment_id])
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    said = result.leaderboard.disagreement
    assert parent.data.tags["llmembed.valid_and_test_disagree"] == said.summary
    for name, value in said.figures.items():
        assert parent.data.metrics[name] == pytest.approx(value)
