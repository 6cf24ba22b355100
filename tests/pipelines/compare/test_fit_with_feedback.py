"""``fit --feedback``: corrections kept by a server become training data, and the run says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmembed.cli import main


@pytest.fixture()
def table(tmp_path: Path) -> Path:
    path = tmp_path / "news.csv"
    words = {"grain": "wheat harvest", "ships": "cargo vessel"}
    path.write_text(
        "body,topic\n"
        + "".join(
            f"the {words[t]} of week {i},{t}\n" for i in range(60) for t in ("grain", "ships")
        )
    )
    return path


def keep(files: Path, rows: list[dict]) -> None:
    folder = files / "feedback" / "news"
    folder.mkdir(parents=True)
    (folder / "0-x-00000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def words(table: Path, files: Path, *more: str) -> list[str]:
    options = ["--data", str(table), "--text-column", "body", "--label-column", "topic"]
    return ["fit", "--method", "lexical", *options, "--files", str(files), "--local", *more]


def test_feedback_is_trained_on_and_recorded(table: Path, tmp_path: Path, capsys) -> None:
    import llmembed

    files = tmp_path / "files"
    rows = [
        {"text": f"zebra sightings {i}", "task": "topic", "label": "ships", "time": str(i)}
        for i in range(20)
    ]
    keep(files, [*rows, {"text": "odd", "task": "topic", "label": "travel"}])
    saved = tmp_path / "saved"
    code = main(words(table, files, "--feedback", "news", "--seeds", "1", "--save", str(saved)))
    printed = capsys.readouterr().out
    assert code == 0, printed
    said = "20 texts added, 0 training rows corrected, 1 bad rows set aside"
    assert said in printed
    prediction = llmembed.load(saved).predict(["zebra sightings 99"])["topic"]
    assert prediction.labels[0] == 1
    assert prediction.scores[0, 1] > 0.8
    artifacts = list((files / "mlartifacts").rglob("corpus.json"))
    assert any(json.loads(path.read_text()).get("feedback") == said for path in artifacts)
    assert list((files / "mlartifacts").rglob("news-feedback.jsonl"))


def test_feedback_that_is_not_there_is_one_sentence(table: Path, tmp_path: Path, capsys) -> None:
    assert main(words(table, tmp_path / "files", "--feedback", "nwes")) == 2
    assert "no feedback on a model of that name" in capsys.readouterr().err
