"""``compare`` on more classes than are drawn and written whole, in this process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from llmembed.experiment import load_experiment
from llmembed.pipelines.compare import compare, report

CLASSES = 250
ROWS = 1000


def test_hundreds_of_classes_leave_small_files(
    tmp_path: Path, empty_database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    lines = ["text,label"]
    for row in range(ROWS):
        own, other = row % CLASSES, rng.integers(CLASSES)
        said = own if rng.random() < 0.8 else other
        lines.append(f"word{said} and filler{rng.integers(50)} of {row},class {own:03d}")
    data = tmp_path / "many.csv"
    data.write_text("\n".join(lines) + "\n")
    files = tmp_path / "files"
    files.mkdir()
    shutil.copy(empty_database, files / "mlflow.db")
    experiment = load_experiment(
        "compare",
        changes={
            "data.source": str(data),
            "runtime.files": str(files),
            "runtime.local": True,
            "seeds": 1,
        },
        overrides=["methods.lexical.inverse_penalties=[1.0]"],
        only=["lexical"],
    )
    found = compare(experiment, json_path=str(tmp_path / "figures.json"))
    assert found.leaderboard.winner is not None
    assert found.leaderboard.winner.test["label"].mean > 0.5  # 80 % of the words say the class
    told = " ".join(capsys.readouterr().out.split())
    assert "no threshold for `unknown`: " in told  # 99 % needs 299 validation texts and more
    for path in files.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".npz", ".png"):
            assert path.stat().st_size < 2 * 2**20, path
    [matrix] = files.rglob("confusion/*.npz")
    with np.load(matrix, allow_pickle=False) as kept:
        assert kept["shape"].tolist() == [CLASSES, CLASSES]
        assert kept["data"].sum() == found.leaderboard.results[0].test["label"].examples
    assert len(list(files.rglob("figures/label_confusion.png"))) == 1
    [stored] = files.rglob("leaderboards/*.json")
    report(str(stored))
    assert "lexical" in capsys.readouterr().out
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert rows[0]["core_seconds"] > 0
