"""Sweeps whose files lie on s3: any machine goes on with them. A real server of that protocol on
the loopback address; another machine is another working directory and another home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sweep_data import overrides, settings, write_csv

from llmembed.embeddings.folder import Folder
from llmembed.errors import ConfigError
from tune.heads.space import Configuration
from tune.ledger import Ledger, Planned, Record

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bucket(s3: Any) -> str:
    """An address that names its server by itself."""
    s3.create_bucket(Bucket="sweeps")
    server = s3.meta.endpoint_url.removeprefix("http://")
    return f"s3://sweeps/here?endpoint_override={server}&scheme=http&region=us-east-1"


def test_a_ledger_on_s3_is_opened_from_another_machine(bucket, tmp_path):
    place = Folder(bucket).child("sweeps", "words")
    first = Ledger.create(place, {"sweep": {"a": 1}}, tmp_path / "one")
    planned = Planned(configuration=Configuration(fusion="avg"), seed=3)
    assert first.write(Record(planned=planned, status="ok", figures={"valid_accuracy": 0.5}))
    first.note(finalists=["x"])
    first.note_test(0, {"value": 0.25})
    (tmp_path / "winner" / "head").mkdir(parents=True)
    (tmp_path / "winner" / "head" / "weights").write_bytes(b"12")
    place.child("winner").put(tmp_path / "winner")

    again = Ledger.open(place, tmp_path / "two")
    assert again.name == "words"
    assert again.facts == {"sweep": {"a": 1}, "finalists": ["x"]}
    assert again.tests() == {0: {"value": 0.25}}
    [record] = again.records.values()
    assert (record.planned, record.figures) == (planned, {"valid_accuracy": 0.5})
    assert not again.write(record), "what is there is not written again"
    assert place.child("winner", "head").read("weights") == b"12"
    with pytest.raises(ConfigError, match="there is a sweep 'words' already"):
        Ledger.create(place, {}, tmp_path / "three")
    with pytest.raises(ConfigError, match="no sweep 'other'"):
        Ledger.open(Folder(bucket).child("sweeps", "other"), tmp_path / "four")


def run(machine: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command on a machine of its own: where it stands, its home and its temporary files."""
    for name in ("home", "here"):
        (machine / name).mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "HOME": str(machine / "home"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "llmembed", *words]
    return subprocess.run(command, cwd=machine / "here", env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_another_machine_goes_on_with_a_sweep_and_reads_its_winner(bucket, tmp_path, tiny_bert):
    data = write_csv(tmp_path / "news.csv")
    given = settings(data, tiny_bert, tmp_path) | {"runtime.files": bucket}
    given["space"] = {"fusion": ["last", "avg"], "learning_rate": [0.005, 0.01]}
    runs = f"sqlite:///{tmp_path}/runs.db"
    words = [*overrides(given), f"tracking.uri={runs}", "--name", "two"]
    done = run(tmp_path / "first", "tune", *words)
    assert done.returncode == 0, done.stderr
    place = Folder(bucket).child("sweeps", "two")
    fits = place.child("fits").names()
    # As if the first machine had died before all was done.
    gone = [name for name in fits if name.endswith("-0.json")][:1]
    system, path = place.child("fits").remote
    system.delete_file(f"{path}/{gone[0]}")
    facts = json.loads(place.read("sweep.json"))
    del facts["outcome"]
    place.write("sweep.json", json.dumps(facts).encode())
    before = {name: place.child("fits").read(name) for name in place.child("fits").names()}

    second = tmp_path / "second"
    done = run(second, "tune", "--resume", "two", "--files", bucket)
    assert done.returncode == 0, done.stderr
    after = {name: place.child("fits").read(name) for name in place.child("fits").names()}
    assert set(after) == set(fits)
    assert {name: after[name] for name in before} == before, "nothing finished was done again"
    assert "winner:" in done.stdout
    assert not list((second / "here").iterdir()), "nothing is left in the working directory"

    done = run(second, "fit", place.file("winner.yaml"), "--local", "seeds=1", "--files", "files")
    assert done.returncode == 0, done.stderr
