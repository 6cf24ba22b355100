"""Sweeps as processes that are killed, interrupted, submitted: nothing finished is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from sweep_data import overrides, settings, write_csv

from llmembed.tracking import Tracking
from tune.ledger import Ledger

pytestmark = pytest.mark.slow
SPACE = {
    "space": {"fusion": ["last", "avg", "max", "co", "co_avg"], "sigma": [0.1, 0.3, 0.5]},
    "search.grouped": False,
    "search.concurrent": 2,
}
FITS = 9


def command(place: tuple[Path, Path, Path], name: str, **more: Any) -> list[str]:
    folder, data, model = place
    given = settings(data, model, folder / "files", **{**SPACE, **more})
    return ["tune", *overrides(given), "--name", name]


def begin(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "llmembed", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell's background jobs ignore SIGINT, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for(condition: Any, process: subprocess.Popen[str], seconds: float = 150) -> None:
    """Until ``condition()``; fails with the process's words when it ends before."""
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            pytest.fail(f"it ended before: {process.communicate()[0][-3000:]}")
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.05)


def written(folder: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in folder.glob("fits/*.json")}


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_bert):
    folder = tmp_path_factory.mktemp("survive")
    return folder, write_csv(folder / "news.csv"), tiny_bert


def statuses(place) -> dict[str, list[str]]:
    tracking = Tracking(None, "news", files=place[0] / "files")
    runs = tracking.client.search_runs([tracking.experiment_id], max_results=500)
    found: dict[str, list[str]] = {}
    for run in runs:
        found.setdefault(run.info.status, []).append(run.data.tags.get("llmembed.fit", "other"))
    return found


def test_killed_then_interrupted_then_finished(place):
    """SIGKILL, --resume, Ctrl-C, --resume: every fit once, no run left RUNNING."""
    sweep = place[0] / "files" / "sweeps" / "k"
    first = begin(command(place, "k"))
    wait_for(lambda: len(written(sweep)) >= 2, first)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    kept = written(sweep)
    assert 2 <= len(kept) < FITS

    go_on = ["tune", "--resume", "k", "--files", str(place[0] / "files")]
    second = begin(go_on)
    wait_for(lambda: len(written(sweep)) > len(kept), second)
    os.kill(second.pid, signal.SIGINT)
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 130, said
    assert "llmembed tune --resume k" in said and "Traceback" not in said
    stopped_at = written(sweep)
    # A driver killed between a fit's file and its run writes the run, and that alone, anew.
    changed = [name for name in kept if stopped_at[name] != kept[name]]
    assert len(changed) <= 1
    assert "RUNNING" not in statuses(place)

    third = begin(go_on)
    said, _ = third.communicate(timeout=240)
    assert third.returncode == 0, said
    assert "winner:" in said
    finished = Ledger.open(sweep).records
    assert len([r for r in finished.values() if r.planned.seed == 0]) == FITS
    assert all(r.status == "ok" for r in finished.values())
    found = statuses(place)
    assert "RUNNING" not in found
    for fit in finished:
        assert found["FINISHED"].count(fit) == 1


def test_a_trial_whose_process_is_killed_fails_alone(place):
    """A worker ended by SIGKILL, as the kernel does when memory is out, is one failed fit."""
    sweep = place[0] / "files" / "sweeps" / "w"
    process = begin(
        command(
            place,
            "w",
            head={"widths": [16], "epochs": 4000, "patience": None},
            space={"fusion": ["last", "avg", "max"]},
        )
    )

    def trial() -> psutil.Process | None:
        for child in psutil.Process(process.pid).children(recursive=True):
            try:
                words = " ".join(child.cmdline())
            except psutil.Error:  # it ended meanwhile
                continue
            if "ImplicitFunc" in words or "run_trial" in words:
                return child
        return None

    wait_for(lambda: trial() is not None, process)
    time.sleep(3)  # into the training
    found = trial()
    assert found is not None
    found.kill()
    said, _ = process.communicate(timeout=280)
    assert process.returncode == 0, said
    records = Ledger.open(sweep).records
    failed = [r for r in records.values() if r.status == "failed"]
    assert len(failed) == 1 and "process died" in str(failed[0].reason), [r.reason for r in failed]
    assert "failed:" in said
