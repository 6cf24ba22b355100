"""Whole sweeps on a real local Ray, a real MLflow and a tiny model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from sweep_data import settings, write_csv

from llmembed.errors import ConfigError
from llmembed.tracking import Tracking
from tune import load_sweep, resume, start
from tune.board import pareto, standings, table
from tune.ledger import Ledger


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_bert, local_ray):
    folder = tmp_path_factory.mktemp("sweeps")
    return folder, write_csv(folder / "news.csv"), tiny_bert


def sweep_of(place, **more):
    folder, data, model = place
    return load_sweep("paper-grid", changes=settings(data, model, folder / "files", **more))


GRID = {
    "space": {
        "fusion": ["last", "avg", "concat_b_r", "co_avg"],
        "sigma": [0.2, 0.5],
        "learning_rate": [0.005, 900.0],
        "weight_decay": 1.0,
    },
    "search.seeds": 2,
}


@pytest.fixture(scope="module")
def grid(place):
    """Ten configurations, half of which can't work, two seeds, trained in groups."""
    folder = place[0]
    found = start(sweep_of(place, **GRID), name="grid", json_path=str(folder / "grid.json"))
    tracking = Tracking(None, "news", files=folder / "files")
    runs = tracking.client.search_runs([tracking.experiment_id], max_results=500)
    return found, Ledger.open(found.folder), runs, json.loads((folder / "grid.json").read_text())


@pytest.mark.slow
def test_every_fit_is_made_once_and_failures_have_reasons(grid):
    found, ledger, _, figures = grid
    assert len(ledger.records) == 20
    assert {r.status for r in ledger.records.values()} == {"ok", "failed"}
    for record in ledger.records.values():
        works = record.planned.configuration.learning_rate < 1
        assert (record.status == "ok") == works
        assert works or "loss is" in record.reason or "answers" in record.reason
        assert record.grouped
    assert len(found.failed) == len(figures["failed"]) == 10
    assert len(found.standings) == len(figures["configurations"]) == 5


@pytest.mark.slow
def test_the_winner_is_best_on_validation_and_alone_meets_test(grid):
    found, _, runs, figures = grid
    assert found.winner.accuracy == max(each.accuracy for each in found.standings)
    assert found.winner.accuracy > 0.6
    with_test = [r for r in runs if any(key.startswith("test/") for key in r.data.metrics)]
    assert {r.info.run_name for r in with_test} == {"winner seed 0", "winner seed 1"}
    assert len(figures["test"]["tasks"]["topic"]["values"]) == 2
    assert figures["test"]["part"] == "test"


@pytest.mark.slow
def test_trials_are_nested_runs_of_the_sweep(grid):
    found, ledger, runs, _ = grid
    [parent] = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    nested = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    fits = {r.data.tags["llmembed.fit"]: r for r in nested if "llmembed.fit" in r.data.tags}
    assert set(fits) == set(ledger.records)
    for fit, run in fits.items():
        record = ledger.records[fit]
        assert run.data.params["fusion"] == record.planned.configuration.fusion
        assert ("sigma" in run.data.params) == (record.planned.configuration.sigma is not None)
        assert run.info.status == ("FINISHED" if record.status == "ok" else "FAILED")
    best = {r.data.params["configuration"] for r in fits.values() if "llmembed.best" in r.data.tags}
    assert best == {found.winner.configuration.id}
    assert parent.info.status == "FINISHED"
    assert all(r.info.status != "RUNNING" for r in runs)


@pytest.mark.slow
def test_pictures_are_in_the_parent_run(grid, place):
    _, _, runs, _ = grid
    [parent] = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    tracking = Tracking(None, "news", files=place[0] / "files")
    drawn = {a.path for a in tracking.client.list_artifacts(parent.info.run_id, "figures")}
    names = {"accuracy_by_fusion", "accuracy_by_sigma", "pareto_front"}
    assert {f"figures/{name}.png" for name in names} <= drawn


@pytest.mark.slow
def test_the_winner_can_be_fitted_again_and_answers(grid):
    from llmembed.experiment import load_experiment
    from llmembed.methods import load

    found, _, _, _ = grid
    experiment = load_experiment(str(found.folder / "winner.yaml"))
    assert experiment.methods["tuned"].fusion == found.winner.configuration.fusion
    classifier = load(found.folder / "winner")
    answers = classifier.predict(["oil price supply rose oil", "banks cut rates after"])
    assert answers["topic"].scores.shape == (2, 3)


@pytest.mark.slow
def test_resume_runs_what_is_missing_and_nothing_else(grid, place):
    folder = place[0]
    found, ledger, _, _ = grid
    good = [r for r in ledger.records.values() if r.status == "ok"]
    lost = [r for r in good if r.planned.configuration != found.winner.configuration][:2]
    for record in lost:
        (found.folder / "fits" / f"{record.planned.id}.json").unlink()
    before = {p.name: p.stat().st_mtime_ns for p in (found.folder / "fits").glob("*.json")}
    again = resume("grid", files=str(folder / "files"))
    after = {p.name: p.stat().st_mtime_ns for p in (found.folder / "fits").glob("*.json")}
    assert set(after) - set(before) == {f"{r.planned.id}.json" for r in lost}
    assert all(after[name] == before[name] for name in before)
    assert again.winner.configuration == found.winner.configuration
    assert again.test == found.test
    tracking = Tracking(None, "news", files=folder / "files")
    runs = tracking.client.search_runs([tracking.experiment_id], max_results=500)
    read_test = [r for r in runs if any(key.startswith("test/") for key in r.data.metrics)]
    assert len(read_test) == 2, "test is read by the winner's seeds, once"
    new = Ledger.open(found.folder).records
    for record in lost:
        assert new[record.planned.id].figures["valid_accuracy"] == pytest.approx(
            record.figures["valid_accuracy"], abs=0.1
        )


@pytest.mark.slow
def test_a_run_that_was_logged_but_not_noted_is_found_again(grid, place):
    """The driver was killed between the two."""
    found, *_ = grid
    tracking = Tracking(None, "news", files=place[0] / "files")

    def runs() -> dict[str, str]:
        every = tracking.client.search_runs([tracking.experiment_id], max_results=500)
        return {r.info.run_id: r.info.status for r in every if "llmembed.fit" in r.data.tags}

    before, records = runs(), Ledger.open(found.folder).records
    for status in ("ok", "failed"):
        record = next(r for r in records.values() if r.status == status)
        file = found.folder / "fits" / f"{record.planned.id}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "run": None}))
    resume("grid", files=str(place[0] / "files"))
    assert runs() == before
    assert all(r.run in before for r in Ledger.open(found.folder).records.values())


@pytest.mark.slow
def test_a_kill_after_test_was_read_changes_neither_its_figures_nor_the_finalists(grid, place):
    found, ledger, _, _ = grid
    files = str(place[0] / "files")
    facts_file, noted = found.folder / "sweep.json", found.folder / "test" / "0.json"
    facts = json.loads(facts_file.read_text())
    assert facts["finalists"] == [found.winner.configuration.id]
    del facts["outcome"]  # killed before the winner was registered
    facts_file.write_text(json.dumps(facts))
    told = json.loads(noted.read_text())
    told["test"]["topic"]["metrics"]["accuracy"] = 0.125
    noted.write_text(json.dumps(told))
    shutil.rmtree(found.folder / "winner")
    again = resume("grid", files=files)
    assert again.test["tasks"]["topic"]["values"][0] == 0.125, "test was read again"
    assert again.test["registered"] and (found.folder / "winner").is_dir()

    # As if the finalist's refits had come out worse than what was left behind.
    other = next(s for s in again.standings if s.configuration != found.winner.configuration)
    facts["finalists"] = [other.configuration.id]
    facts_file.write_text(json.dumps(facts))
    shutil.rmtree(found.folder / "test")
    before = set(ledger.records)
    assert resume("grid", files=files).winner.configuration == other.configuration
    assert set(Ledger.open(found.folder).records) == before


@pytest.mark.slow
def test_a_figure_that_one_seed_lacks_has_no_mean(grid):
    _, ledger, _, _ = grid
    good = [r for r in ledger.records.values() if r.status == "ok"]
    lacking = replace(good[0], figures={k: v for k, v in good[0].figures.items() if "lat" not in k})
    records = {r.planned.id: r for r in [*good[1:], lacking]}
    found = {s.configuration: s for s in standings(records)}
    mine = found.pop(lacking.planned.configuration)
    assert "latency_seconds" not in mine.figures and "parameters" in mine.figures
    assert mine not in pareto([mine, *found.values()], "latency_seconds")
    table([mine, *found.values()], "latency_seconds")


@pytest.mark.slow
def test_median_stopping_ends_what_lags_behind(place):
    """Rates so small that nothing is learnt stay below the median of the others."""
    sweep = sweep_of(
        place,
        **{
            "space": {"fusion": ["last", "avg", "max"], "learning_rate": [0.005, 0.004, 1e-7]},
            "head": {"widths": [16], "epochs": 30, "patience": None},
            "search.stopping": "median",
            "search.finalists": 3,
            "search.final_seeds": 3,
            "search.grouped": False,
            "search.concurrent": 1,
        },
    )
    found = start(sweep, name="median")
    records = [r for r in Ledger.open(found.folder).records.values() if r.planned.seed == 0]
    assert len(records) == 9
    stopped = [r for r in records if r.status == "stopped"]
    assert stopped
    assert all("stopped early after epoch" in str(r.reason) for r in stopped)
    assert all(r.figures["epochs"] < 30 for r in stopped)
    assert found.winner.configuration.learning_rate > 1e-5
    refits = [r for r in Ledger.open(found.folder).records.values() if r.planned.seed > 0]
    assert [r.status for r in refits] == ["ok"] * 6, "a refit was stopped"
    assert found.winner.seeds == 3


@pytest.mark.slow
@pytest.mark.variant
def test_tpe_with_asha_and_two_objectives(place):
    folder = place[0]
    sweep = sweep_of(
        place,
        **{
            "space": {
                "fusion": ["avg", "co_avg"],
                "sigma": {"low": 0.1, "high": 0.5, "log": True},
                "learning_rate": {"low": 0.0005, "high": 0.02, "log": True},
                "widths": [[4], [32]],
            },
            "search.algorithm": "tpe",
            "search.trials": 7,
            "search.stopping": "asha",
            "search.second_objective": "parameters",
        },
    )
    found = start(sweep, name="tpe")
    ledger = Ledger.open(found.folder)
    searched = [r for r in ledger.records.values() if r.planned.seed == 0]
    assert len({r.planned.configuration for r in searched}) == 7
    assert {r.status for r in searched} <= {"ok", "stopped"}
    costs = [each.figures["parameters"] for each in found.front]
    accuracies = [each.accuracy for each in found.front]
    assert costs == sorted(costs) and accuracies == sorted(accuracies)
    assert found.winner in found.front
    assert all(r.history for r in searched if r.status == "ok")

    stopped = next(iter(searched)).planned.id
    (found.folder / "fits" / f"{stopped}.json").unlink()
    resume("tpe", files=str(folder / "files"))
    again = Ledger.open(found.folder)
    assert len({r.planned.configuration for r in again.records.values()}) == 7


def test_mistakes_before_anything_runs(place):
    folder, data, _ = place
    with pytest.raises(ConfigError, match="there is a sweep 'twice' already"):
        Ledger.create(folder / "files" / "sweeps" / "twice", {})
        start(sweep_of(place), name="twice")
    with pytest.raises(ConfigError, match=r"no sweep 'nothing'.*there are"):
        resume("nothing", files=str(folder / "files"))
    with pytest.raises(ConfigError, match="go with grid or random"):
        start(sweep_of(place, **{"search.grouped": True, "search.algorithm": "tpe"}), name="x")
    with pytest.raises(ConfigError, match="searched with one seed"):
        start(sweep_of(place, **{"search.stopping": "asha", "search.seeds": 2}), name="y")
    with pytest.raises(ConfigError, match=r"search\.concurrent"):
        sweep_of(place, **{"search.concurrent": 0})
    shutil.copy(data, folder / "other.csv")
    assert not Path(folder / "files" / "sweeps" / "x").exists()
