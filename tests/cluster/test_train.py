"""``Runtime.train``: workers that talk to each other, report, keep folders and resume."""

from __future__ import annotations

from pathlib import Path

import pytest
from workers_to_train import Refuses, Sums

from llmembed.cluster import LocalRuntime, RayRuntime
from llmembed.errors import ConfigError, UnsupportedError


def test_in_process_the_last_metrics_and_folder_are_kept(tmp_path: Path) -> None:
    done = LocalRuntime(tmp_path).train(Sums(steps=3), name="sums")
    assert done.metrics == {"total": 1.0, "step": 2.0, "start": 0.0}
    assert done.folder is not None and done.folder.is_relative_to(tmp_path)
    assert (done.folder / "step.txt").read_text() == "2"
    with pytest.raises(UnsupportedError, match="2 workers"):
        LocalRuntime(tmp_path).train(Sums(), workers=2)
    with pytest.raises(UnsupportedError, match="on words"):
        LocalRuntime(tmp_path).train(Refuses())


@pytest.mark.slow
def test_two_workers_sum_up_and_resume_after_one_is_killed(tmp_path: Path, local_ray: None) -> None:
    worker = Sums(steps=3, die_once=tmp_path / "died")
    with RayRuntime(tmp_path / "files") as runtime:
        done = runtime.train(worker, workers=2, name="sums")
    assert (tmp_path / "died").exists()
    assert done.metrics["total"] == 3.0 and done.metrics["step"] == 2.0
    assert done.metrics["start"] > 0, "began anew instead of where it was"
    assert done.folder is not None
    kept = sorted(path.name for path in done.folder.glob("rank-*.txt"))
    assert kept == ["rank-0.txt", "rank-1.txt"]


def test_a_workers_own_error_comes_back_as_itself(tmp_path: Path, local_ray: None) -> None:
    with RayRuntime(tmp_path) as runtime, pytest.raises(UnsupportedError) as caught:
        runtime.train(Refuses(), workers=1)
    assert str(caught.value) == "this head can't be trained on words"


def test_a_folder_that_a_machine_does_not_see_is_said_before_training(tmp_path: Path) -> None:
    from llmembed.cluster.train import check_shared

    (tmp_path / "train").mkdir()
    mark = tmp_path / "train" / ".here"
    with pytest.raises(ConfigError, match=f"doesn't see {tmp_path}: with several machines --files"):
        check_shared(str(mark))
    mark.touch()
    check_shared(str(mark))
    check_shared(None)
