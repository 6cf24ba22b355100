"""A sweep as a job: a real head on this machine, this repository as working directory."""

from __future__ import annotations

import json

import pytest
from ray_head import running_head
from sweep_data import overrides, settings, write_csv

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(tmp_path):
    with running_head(tmp_path / "files") as found:
        yield found


def test_a_submitted_sweep_names_a_winner(cluster, tmp_path, tiny_bert):
    given = settings(write_csv(tmp_path / "news.csv"), tiny_bert, tmp_path / "files")
    given["space"] = {"fusion": ["last", "co_avg"], "sigma": [0.1, 0.5]}
    given.pop("runtime.files")
    words = [*overrides(given), "--name", "job", "--json", "sweep.json"]
    ran = cluster.ray_job("python", "-m", "jobs.tune", *words)
    assert ran.returncode == 0, ran.stdout
    assert "winner:" in ran.stdout and "succeeded" in ran.stdout
    figures = json.loads((tmp_path / "files" / "sweep.json").read_text())
    assert len(figures["configurations"]) == 3
    assert len(list((tmp_path / "files" / "sweeps" / "job" / "fits").glob("*.json"))) >= 4
