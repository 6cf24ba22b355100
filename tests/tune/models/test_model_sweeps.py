"""Sweeps over models trained whole: real trainings on a real Ray of two CPUs, a real MLflow."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from sweep_data import overrides, write_csv

from llmembed.tracking import Tracking
from tune.ledger import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
PROGRAM = Path(__file__).parent / "models_program.py"


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_bert):
    folder = tmp_path_factory.mktemp("models")
    return folder, write_csv(folder / "news.csv", rows=120), tiny_bert


def begin(place: tuple[Path, Path, Path], *words: str, cpus: int = 2) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(cpus), *words, "--files", str(place[0] / "files")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def settings(place: tuple[Path, Path, Path], **more: Any) -> list[str]:
    given = {
        "data.source": str(place[1]),
        "data.labels": {"topic": "topic"},
        "method.model": str(place[2]),
        "method.training": {"batch": 16, "max_tokens": 24, "patience": None},
        "space": {"learning_rate": [0.005, 0.002], "epochs": 3},
        "search": {"algorithm": "grid", "finalists": 1, "final_seeds": 1},
        **more,
    }
    return ["encoder", *overrides(given)]


def ended(process: subprocess.Popen[str], seconds: float = 1500) -> str:
    try:
        said, _ = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return said


def runs_of(place: tuple[Path, Path, Path]) -> list[Any]:
    tracking = Tracking(None, "news", files=place[0] / "files")
    return tracking.client.search_runs([tracking.experiment_id], max_results=500)


def test_more_trials_than_fit_end_and_the_winner_alone_meets_test(place):
    """Three trials on two CPUs, one of which can't learn: nested runs, a reason, a winner."""
    space = {"learning_rate": [0.005, 0.004, 900.0], "epochs": 3, "warmup": 0.0}
    words = settings(place, space=space)
    process = begin(place, *words, "--name", "many", "--json", str(place[0] / "many.json"))
    said = ended(process)
    assert process.returncode == 0, said
    assert "2 trials at once, 1 worker each" in said
    ledger = Ledger.open(place[0] / "files" / "sweeps" / "many")
    by_rate: dict[float, list[str]] = {}
    for record in ledger.records.values():
        told = dict(record.planned.configuration.settings)
        by_rate.setdefault(told["learning_rate"], []).append(record.status)
        if record.status == "ok":
            assert record.figures["epochs"] == pytest.approx(told["epochs"], abs=0.3)
            assert len(record.history) in (3, 4)  # after each epoch, and at the end
            assert record.figures["latency_seconds"] > 0
    assert by_rate == {0.005: ["ok"], 0.004: ["ok"], 900.0: ["failed"]}
    assert all("loss is" in str(r.reason) or "answered" in str(r.reason)
               for r in ledger.records.values() if r.status == "failed")  # fmt: skip
    found = json.loads((place[0] / "many.json").read_text())
    assert found["winner"]["settings"]["learning_rate"] < 1
    assert found["test"]["part"] == "test"
    runs = runs_of(place)
    [parent] = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    nested = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    fits = {r.data.tags["llmembed.fit"] for r in nested if "llmembed.fit" in r.data.tags}
    assert fits == set(ledger.records)
    tested = [r for r in runs if any(name.startswith("test/") for name in r.data.metrics)]
    assert [r.info.run_name for r in tested] == ["winner seed 0"]
    assert not (ledger.folder / "trials").exists()
    assert (ledger.folder / "winner" / "model").is_dir()
    assert "kind: encoder" in (ledger.folder / "winner.yaml").read_text()


def test_two_workers_a_trial_on_two_cpus(place):
    """Of a searcher's trial, which trains one seed after another."""
    more: dict[str, Any] = {"method.workers": 2, "space": {"learning_rate": [0.005, 0.002]}}
    more["search"] = {"algorithm": "tpe", "trials": 1, "seeds": 2, "final_seeds": 1}
    words = settings(place, **more)
    process = begin(place, *words, "--name", "pairs")
    said = ended(process)
    assert process.returncode == 0, said
    assert "1 trial at once, 2 workers each" in said
    records = Ledger.open(place[0] / "files" / "sweeps" / "pairs").records
    assert [r.status for r in records.values()] == ["ok", "ok"], said


def test_killed_then_interrupted_then_finished(place):
    """SIGKILL, --resume, Ctrl-C, --resume: every fit once, its file written once."""
    sweep = place[0] / "files" / "sweeps" / "k"
    space = {"learning_rate": [0.005, 0.004, 0.003], "epochs": 2}

    def files() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in sweep.glob("fits/*.json")}

    def wait(process: subprocess.Popen[str], count: int) -> None:
        end = time.monotonic() + 600
        while len(files()) < count:
            assert process.poll() is None, ended(process)
            assert time.monotonic() < end, "nothing happened in time"
            time.sleep(0.1)

    first = begin(place, *settings(place, space=space), "search.concurrent=1", "--name", "k")
    wait(first, 1)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    kept = files()
    second = begin(place, "--resume", "k")
    wait(second, len(kept) + 1)
    os.kill(second.pid, signal.SIGINT)
    said = ended(second)
    assert second.returncode == 130, said
    assert "llmembed tune --resume k" in said and "Traceback" not in said
    third = begin(place, "--resume", "k")
    said = ended(third)
    assert third.returncode == 0, said
    records = Ledger.open(sweep).records
    assert len(records) == 3 and {r.status for r in records.values()} == {"ok"}
    after = files()
    assert sum(after[name] != kept[name] for name in kept) <= 1  # its run was told after the file
    found = [r.data.tags.get("llmembed.fit") for r in runs_of(place) if r.info.status == "FINISHED"]
    assert all(found.count(fit) == 1 for fit in records)


def test_poor_trainings_are_stopped_on_what_epochs_say(place):
    words = settings(
        place,
        space={"learning_rate": [0.005, 0.004, 0.003, 1e-9], "epochs": 8},
        search={
            "algorithm": "grid",
            "stopping": "median",
            "finalists": 1,
            "final_seeds": 1,
            "concurrent": 1,
        },
    )
    process = begin(place, *words, "--name", "median")
    said = ended(process)
    assert process.returncode == 0, said
    records = Ledger.open(place[0] / "files" / "sweeps" / "median").records
    stopped = [r for r in records.values() if r.status == "stopped"]
    assert stopped, [(r.status, r.figures) for r in records.values()]
    assert all("stopped early after epoch" in str(r.reason) for r in stopped)
    assert all(r.figures["epochs"] < 7 for r in stopped)
    assert not (place[0] / "files" / "sweeps" / "median" / "trials").exists()


def test_what_does_not_fit_is_said_before_anything_runs(place):
    space = {"learning_rate": {"low": 0.001, "high": 0.01, "steps": 30}}
    words = settings(place, space=space)
    process = begin(place, *words, "search.concurrent=30", "--name", "wide")
    said = ended(process)
    assert process.returncode == 2, said
    assert "search.concurrent is 30: 2 CPUs hold at most" in said
    assert "Traceback" not in said
