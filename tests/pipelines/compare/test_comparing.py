"""The main job on a real local Ray and a real SQLite MLflow: texts in, champion out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmembed.experiment import load_experiment

METHODS = ["lexical", "probe", "avg_b_r", "concat+lexical"]


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """Two tasks on one text: the topic, and whether the news is good."""
    path = tmp_path_factory.mktemp("data") / "news.csv"
    topics = {
        "grain": ["the wheat harvest", "corn exports", "the barley crop", "soybean farmers"],
        "ships": ["the tanker", "port workers", "the cargo vessel", "a container ship"],
        "money": ["the central bank", "interest rates", "currency dealers", "bond yields"],
    }
    moods = {"good": ["gained", "improved a lot", "did well"], "bad": ["fell", "suffered", "lost"]}
    rows = ["text,topic,mood"]
    for number in range(360):
        topic, mood = list(topics)[number % 3], list(moods)[number % 2]
        subject, verb = topics[topic][number % 4], moods[mood][number % 3]
        rows.append(f"{subject} {verb} in week {number} of the year,{topic},{mood}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def compared(table: Path, tmp_path_factory):
    from llmembed.pipelines.compare import compare

    files = tmp_path_factory.mktemp("files")
    experiment = load_experiment(
        "compare",
        changes={
            "data.source": str(table),
            "data.labels": {"topic": "topic", "mood": "mood"},
            "runtime.files": str(files),
            "runtime.actors": 1,
            "seeds": 2,
        },
        overrides=["methods.avg_b_r.head.epochs=8", "methods.concat+lexical.head.epochs=8"],
        only=METHODS,
    )
    result = compare(experiment, json_path=str(files / "figures.json"))
    return experiment, files, result


@pytest.fixture(scope="module")
def client(compared):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{compared[1]}/mlflow.db")


def runs_of(client, name: str):
    [experiment] = [e for e in client.search_experiments() if e.name == name]
    return client.search_runs([experiment.experiment_id], max_results=100)


def test_every_method_has_its_row_and_validation_chose(compared):
    board = compared[2].leaderboard
    assert {row.label for row in board.rows} == set(METHODS)
    assert all(row.status == "ok" for row in board.rows)
    assert {row.label: row.seeds for row in board.rows} == {
        "lexical": 1,
        "probe": 1,
        "avg_b_r": 2,
        "concat+lexical": 2,
    }
    best = max(row.valid_mean.mean for row in board.rows)
    assert board.winner.valid_mean.mean == best
    for row in board.rows:
        assert set(row.test) == {"topic", "mood"}
        assert row.test["topic"].mean > 0.9
        assert row.latency_p50_ms > 0
        assert row.energy_kwh > 0


def test_a_cached_embedding_still_bears_its_cost(compared):
    rows = {row.label: row for row in compared[2].leaderboard.rows}
    assert rows["probe"].tokens > 360 * 8
    assert rows["avg_b_r"].tokens == rows["probe"].tokens
    assert rows["lexical"].tokens == 0


def test_the_figures_printed_are_the_figures_written(compared):
    _, files, result = compared
    written = json.loads((files / "figures.json").read_text())
    assert written == json.loads(json.dumps(result.leaderboard.to_json()))
    stored = list((files / "leaderboards").glob("*-news.json"))
    assert len(stored) == 1


def test_runs_are_nested_complete_and_ended(compared, client):
    runs = runs_of(client, "news")
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run is not parent]
    assert len(children) == 1 + 1 + 2 + 2
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    for run in children:
        metrics = run.data.metrics
        for name in ("valid/topic/accuracy", "test/mood/accuracy", "energy_joules", "cost_usd"):
            assert name in metrics
        [data] = run.inputs.dataset_inputs
        assert data.dataset.name == "news"
        assert len(data.dataset.digest) == 36


def test_epochs_pictures_and_tables_are_there(compared, client):
    runs = {run.info.run_name: run for run in runs_of(client, "news")}
    run = runs["avg_b_r seed 0"]
    history = client.get_metric_history(run.info.run_id, "fold_1/valid_accuracy")
    assert [metric.step for metric in history] == list(range(1, len(history) + 1))
    assert len(history) >= 2
    files = {f.path for f in client.list_artifacts(run.info.run_id, "figures")}
    assert "figures/topic_confusion.png" in files
    tables = {f.path for f in client.list_artifacts(run.info.run_id, "per_class")}
    assert tables == {"per_class/topic.json", "per_class/mood.json"}
    parent = runs["compare news"]
    top = {f.path for f in client.list_artifacts(parent.info.run_id)}
    assert {"leaderboard.md", "leaderboard.json", "experiment.json", "environment.json"} <= top


def test_the_winner_is_champion_and_answers_as_a_pyfunc(compared, monkeypatch):
    import mlflow
    import pandas as pd

    _, files, result = compared
    assert result.registered.alias == "champion"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{files}/mlflow.db")
    model = mlflow.pyfunc.load_model("models:/news@champion")
    text = "the wheat harvest gained in week 12 of the year"
    answer = model.predict(pd.DataFrame({"text": [text]}))
    assert answer.loc[0, "topic"] == "grain"
    assert answer.loc[0, "mood"] == "good"
    assert 0 < answer.loc[0, "topic_score"] <= 1


def test_running_again_embeds_nothing_and_moves_no_champion(compared, capsys):
    from llmembed.pipelines.compare import compare

    experiment, _, first = compared
    only = {"probe": experiment.methods["probe"]}
    again = compare(experiment.model_copy(update={"methods": only, "seeds": 1}))
    shown = capsys.readouterr().out
    assert "0 embedded" in shown
    assert again.registered.alias == "challenger"
    assert again.registered.name == first.registered.name
    assert "accuracy over 5 folds 1.0000 does not beat" in again.registered.reason
    assert "texts left out of both it alone answers 0 right" in again.registered.reason


def test_past_the_budget_nothing_more_is_started(compared, capsys):
    from llmembed.pipelines.compare import compare

    experiment, _, _ = compared
    settings = experiment.model_dump()
    settings["budget"] = {"seconds": 0.001}
    settings["methods"] = {name: settings["methods"][name] for name in ("lexical", "probe")}
    settings["runtime"]["local"] = True
    board = compare(type(experiment).model_validate(settings)).leaderboard
    status = {row.label: row.status for row in board.rows}
    assert status["lexical"] == "ok"
    assert status["probe"] == "skipped: not started: the budget of 0.001 s was spent"
