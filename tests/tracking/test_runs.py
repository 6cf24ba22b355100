from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llmembed.errors import ConfigError
from llmembed.tracking import Driver, Tracking


def status(tracking: Tracking, run_id: str) -> str:
    return tracking.client.get_run(run_id).info.status


def test_nested_runs_are_children_of_theirs(tracking: Tracking) -> None:
    with tracking.run("compare", description="three methods") as sweep:
        with tracking.run("probe", parent=sweep, tags={"method": "probe"}) as probe:
            pass
        with tracking.run("lexical", parent=sweep.id) as lexical:
            pass
    children = tracking.client.search_runs(
        [tracking.experiment_id], f"tags.mlflow.parentRunId = '{sweep.id}'"
    )
    assert {child.info.run_id for child in children} == {probe.id, lexical.id}
    found = tracking.client.get_run(sweep.id)
    assert found.data.tags["mlflow.note.content"] == "three methods"
    assert found.info.run_name == "compare"
    assert tracking.client.get_run(probe.id).data.tags["method"] == "probe"
    assert "llmembed.driver" not in found.data.tags, "of use only while it runs"
    assert {status(tracking, run.id) for run in (sweep, probe, lexical)} == {"FINISHED"}


@pytest.mark.parametrize(
    ("error", "expected"), [(ValueError("bad row"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_an_exception_ends_the_run_and_its_parent(
    tracking: Tracking, error: BaseException, expected: str
) -> None:
    with (
        pytest.raises(type(error)),
        tracking.run("outer") as outer,
        tracking.run("inner", parent=outer) as inner,
    ):
        inner.reporter().report({"loss": 0.5}, step=1)
        raise error
    assert status(tracking, outer.id) == status(tracking, inner.id) == expected
    tags = tracking.client.get_run(inner.id).data.tags
    assert type(error).__name__ in tags["llmembed.error"]
    history = tracking.client.get_metric_history(inner.id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 0.5)], "what was reported is not lost"


def test_reported_metrics_stand_by_step(tracking: Tracking) -> None:
    with tracking.run("fit") as run:
        reporter = run.reporter(prefix="head/")
        for epoch in range(700):
            reporter.report({"loss": 1 / (epoch + 1), "accuracy": epoch / 700}, step=epoch)
        run.metrics({"test/accuracy": 0.97, "absent": None})
    history = tracking.client.get_metric_history(run.id, "head/loss")
    assert [m.step for m in sorted(history, key=lambda m: m.step)] == list(range(700))
    assert max(history, key=lambda m: m.step).value == pytest.approx(1 / 700)
    data = tracking.client.get_run(run.id).data
    assert data.metrics["test/accuracy"] == pytest.approx(0.97)
    assert "absent" not in data.metrics


def test_reporting_from_threads_loses_nothing(tracking: Tracking) -> None:
    with tracking.run("fit") as run:
        reporter = run.reporter()

        def work(offset: int) -> None:
            for step in range(400):
                reporter.report({"loss": float(step)}, step=offset + step)

        threads = [threading.Thread(target=work, args=(1000 * i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(tracking.client.get_metric_history(run.id, "loss")) == 1600


def test_numbers_that_are_none_are_named_not_stored(tracking: Tracking) -> None:
    with tracking.run("fit") as run:
        run.metrics({"a": math.nan, "b": 2.0}, step=3)
        run.reporter().report({"c": math.inf}, step=4)
    data = tracking.client.get_run(run.id).data
    assert data.metrics == {"b": 2.0}
    assert data.tags["llmembed.not_finite"] == "a=nan at step 3, c=inf at step 4"


def test_params_of_any_length_and_number(tracking: Tracking) -> None:
    with tracking.run("fit") as run:
        run.params({f"p{i}": i for i in range(250)})
        run.params({"long text": "ä" * 9000, "head": {"lr": 1e-3, "sizes": [1024, 256]}, "k:@1": 1})
    params = tracking.client.get_run(run.id).data.params
    assert {f"p{i}" for i in range(250)} <= set(params)
    assert (params["head.lr"], params["head.sizes"]) == ("0.001", "[1024, 256]")
    assert params["k__1"] == "1"
    assert len(params["long text"]) == 6000
    assert params["long text"].endswith("[cut: 9000 characters in all; params/long text.txt]")
    local = tracking.client.download_artifacts(run.id, "params/long text.txt")
    assert Path(local).read_text() == "ä" * 9000


def test_dataset_is_an_input_with_its_digest(tracking: Tracking) -> None:
    digest = "0123456789abcdef" * 4
    with tracking.run("fit") as run:
        run.dataset("r8", digest, 5485, "s3://key:hush@bucket/r8", "train")
        run.dataset("r8", digest, 2189, "/data/r8-test.csv", "test")
    inputs = tracking.client.get_run(run.id).inputs.dataset_inputs
    by_context = {item.tags[0].value: item.dataset for item in inputs}
    assert {k: d.name for k, d in by_context.items()} == {"train": "r8", "test": "r8 (test)"}
    train = by_context["train"]
    assert train.name == "r8"
    assert train.digest == digest[:36]
    assert json.loads(train.profile) == {"num_rows": 5485, "digest": digest}
    assert "hush" not in train.source


def test_artifacts_lie_under_the_files_folder(tracking: Tracking, files: Path) -> None:
    folder = files / "result"
    folder.mkdir()
    (folder / "a.bin").write_bytes(b"\x00\x01")
    (files / "front.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with tracking.run("fit") as run:
        run.artifact(folder)
        run.figure(files / "front.png")
        run.text("hello", "notes/a.txt")
        run.json({"a": [1, 2]}, "a.json")
        run.table([{"class": "earn", "f1": 0.9}, {"class": "acq", "support": 3}], "table.json")
    kept = files / "mlartifacts" / "r8" / run.id / "artifacts"
    assert (kept / "result" / "a.bin").read_bytes() == b"\x00\x01"
    assert (kept / "figures" / "front.png").exists()
    assert (kept / "notes" / "a.txt").read_text() == "hello"
    assert json.loads((kept / "a.json").read_text()) == {"a": [1, 2]}
    table = json.loads((kept / "table.json").read_text())
    assert table["columns"] == ["class", "f1", "support"]
    assert table["data"][0][:2] == ["earn", 0.9]


def test_environment_of_a_run_without_parent(
    tracking: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for step in (
        ["init", "-q"],
        ["remote", "add", "origin", "https://me:hush@git.example/x.git"],
        ["commit", "-q", "--allow-empty", "-m", "first"],
    ):
        subprocess.run([*git, *step], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    monkeypatch.chdir(repository)
    with tracking.run("compare") as run, tracking.run("fit", parent=run) as child:
        pass
    tags = tracking.client.get_run(run.id).data.tags
    assert tags["mlflow.source.git.commit"] == commit.stdout.strip()
    assert tags["mlflow.source.git.repoURL"] == "https://***@git.example/x.git"
    found = json.loads(
        Path(tracking.client.download_artifacts(run.id, "environment.json")).read_text()
    )
    assert found["packages"]["mlflow"]
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["git"]["changed"] is False
    assert tracking.client.list_artifacts(child.id) == []


DRIVER = """
import sys, time
from llmembed.tracking import Tracking
tracking = Tracking(experiment="r8", files=sys.argv[1])
with tracking.run("sweep") as sweep, tracking.run("trial", parent=sweep) as trial:
    trial.metrics({"loss": 0.5}, step=1)
    print(sweep.id, trial.id, flush=True)
    time.sleep(600)
"""


def test_runs_of_a_killed_driver_are_closed_and_only_those(tracking: Tracking, files: Path) -> None:
    command = [sys.executable, "-c", DRIVER, str(files)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as alive,
    ):
        try:
            assert killed.stdout is not None and alive.stdout is not None
            orphans = killed.stdout.readline().split()
            living = alive.stdout.readline().split()
            assert len(orphans) == len(living) == 2
            assert tracking.close_orphans().closed == (), "both drivers live"
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            assert {status(tracking, run) for run in orphans} == {"RUNNING"}
            with tracking.run("mine") as mine:
                other = Tracking(experiment="another", files=files)
                assert set(other.close_orphans().closed) == set(orphans)
                assert status(tracking, mine.id) == "RUNNING"
            assert {status(tracking, run) for run in orphans} == {"KILLED"}
            assert {status(tracking, run) for run in living} == {"RUNNING"}
            trial = tracking.client.get_run(orphans[1])
            last = tracking.client.get_metric_history(trial.info.run_id, "loss")[0].timestamp
            assert trial.info.end_time == last, "its time stops at its last sign of life"
            assert tracking.close_orphans().closed == ()
        finally:
            killed.kill()
            alive.kill()


def test_a_driver_elsewhere_is_not_judged(tracking: Tracking) -> None:
    here = Driver.here()
    assert here.is_gone() is False
    assert Driver.from_tag(here.to_tag()) == here
    reused = {**vars(here), "started": "1"}
    assert Driver(**reused).is_gone() is True, "the process id belongs to another process now"
    assert Driver(**{**vars(here), "boot": "earlier"}).is_gone() is True
    elsewhere = Driver(**{**vars(here), "machine": "elsewhere", "pid": 1})
    assert elsewhere.is_gone() is None
    assert Driver.from_tag("{}") is None
    with tracking.run("theirs") as run:
        run.tags({"llmembed.driver": elsewhere.to_tag()})
        found = tracking.close_orphans()
    assert (found.closed, found.unknown) == ((), 1)


def test_the_page_is_that_of_the_experiment(tracking: Tracking) -> None:
    made = tracking.client.get_experiment_by_name("r8")
    assert made is None
    page = tracking.page
    made = tracking.client.get_experiment_by_name("r8")
    assert made is not None
    assert page.startswith(f"http://127.0.0.1:5000/#/experiments/{made.experiment_id}/runs?")


def test_a_deleted_experiment_is_named(tracking: Tracking, files: Path) -> None:
    tracking.client.delete_experiment(tracking.experiment_id)
    with (
        pytest.raises(ConfigError, match="'r8' was deleted"),
        Tracking(experiment="r8", files=files).run("fit"),
    ):
        pass


def test_nothing_is_printed_and_mlflow_waits_for_a_run(tmp_path: Path) -> None:
    """On first use MLflow would print its migrations; and a plain import must not load it."""
    code = (
        "import sys; import llmembed.tracking as t; assert 'mlflow' not in sys.modules;"
        "tracking = t.Tracking(experiment='x', files=sys.argv[1]);"
        "assert 'mlflow' not in sys.modules\n"
        "assert t.champion(tracking, 'none') is None\n"
        "with tracking.run('a') as run: run.metrics({'b': 1.0})\n"
        "assert 'torch' not in sys.modules and 'ray' not in sys.modules"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "new")],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "new" / "mlflow.db").exists()
