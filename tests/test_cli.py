"""The command line as a user meets it: real processes, real mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmembed.cli import main


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llmembed", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence that answers ``arguments``; the exit code must be 2."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    rows = [f"wheat and corn number {i},grain\nship and port number {i},ship\n" for i in range(30)]
    path.write_text("body,topic\n" + "".join(rows))
    return path


def test_version_and_help():
    assert run("--version").stdout.startswith("llmembed 0.")
    shown = run("--help").stdout
    for command in ("demo", "recipes", "fit", "embed", "compare", "predict", "report", "doctor"):
        assert f"    {command} " in shown
    assert run().returncode == 2


def test_recipes_are_listed_and_shown(capsys):
    assert main(["recipes"]) == 0
    assert "compare " in capsys.readouterr().out
    assert main(["recipes", "compare"]) == 0
    assert "methods:" in capsys.readouterr().out


def test_mistakes_in_a_process_of_its_own_have_no_traceback(tmp_path: Path):
    done = run("compare", "--data", "nowhere.csv", "--local", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "nowhere.csv: no such file" in done.stderr


def test_mistakes_get_one_sentence(capsys, table: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ask = lambda *words: refused(capsys, *words)  # noqa: E731
    assert "did you mean 'compare'" in ask("compare", "comparee", "--local")
    assert "one recipe at a time" in ask("compare", "demo", "compare", "--local")
    assert "did you mean the benchmark 'imdb'" in ask("compare", "--data", "imbd", "--local")
    assert "did you mean 'seeds'" in ask("compare", "--local", "seedz=3")
    sentence = ask("compare", "--local", "--data", str(table), "--label-column", "topic")
    assert "no column 'text'" in sentence
    assert "body, topic" in sentence
    assert "no recipe 'nope'" in ask("recipes", "nope")
    assert "which method?" in ask("fit", "--local", "--data", str(table))
    assert "no leaderboard in" in ask("report", "--files", str(tmp_path / "none"))
    (tmp_path / "board.json").write_text("{}")
    assert "is not a leaderboard" in ask("report", str(tmp_path / "board.json"))


def test_settings_may_follow_the_sources(table: Path):
    from llmembed.cli import _experiment, parse
    from llmembed.cli.arguments import parser

    words = [
        "compare",
        "fusions",
        "--data",
        "r8",
        "seeds=5",
        "--methods",
        "avg",
        "methods.avg.sigma=0.3",
    ]
    experiment = _experiment(parse(parser(), words))
    assert experiment.data.source == ["r8"]
    assert experiment.seeds == 5
    assert experiment.methods["avg"].sigma == 0.3
    hive = table.parent / "year=2024"
    table.rename(hive)
    kept = _experiment(parse(parser(), ["compare", "--data", str(hive), "r8"]))
    assert kept.data.source == [str(hive), "r8"]
    mixed = _experiment(parse(parser(), ["compare", "seeds=2", "--local", "data.limit=20"]))
    assert (mixed.seeds, mixed.data.limit, mixed.runtime.local) == (2, 20, True)


def test_a_recipe_may_be_an_address_with_options():
    from llmembed.cli import _said, parse
    from llmembed.cli.arguments import parser

    address = "s3://bucket/sweeps/two/winner.yaml?endpoint_override=http://127.0.0.1:9"
    recipe, _, overrides = _said(parse(parser(), ["fit", address, "seeds=1"]))
    assert (recipe, overrides) == (address, ["seeds=1"])


def test_how_files_are_written_may_be_said(table: Path):
    from llmembed.cli import _experiment, parse
    from llmembed.cli.arguments import parser

    words = ["fit", "--data", str(table), "--delimiter", "tab", "--encoding", "cp1252", "seeds=1"]
    for command in ("fit", "compare", "tune", "embed"):
        options = parse(parser(), [command, *words[1:]])
        if command != "tune":
            data = _experiment(options).data
            assert (data.delimiter, data.encoding) == ("tab", "cp1252")
        assert (options.delimiter, options.encoding) == ("tab", "cp1252")


def test_predict_mistakes(capsys, table: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ("--data", str(table), "--text-column", "body", "--local")

    def ask(*words: str) -> str:
        return refused(capsys, "predict", *words)

    assert "no classifier.json" in ask(
        "--model", str(tmp_path), "--output", "o.csv", *data
    ).replace("holds no", "no")
    assert "--output o.txt" in ask("--model", str(tmp_path), "--output", "o.txt", *data)
    assert "no registered model" in ask("--model", "a/b/c", "--output", "o.csv", *data)
    assert "can't be had" in ask("--model", "nobody", "--output", "o.csv", *data)
    sentence = ask("--model", "x", "--output", "o.csv", "--unknown-below", "7", *data)
    assert "between 0 and 1" in sentence


def test_fit_save_predict_and_report_on_a_csv_of_ones_own(
    table: Path, tmp_path: Path, capsys, monkeypatch
):
    """The words a user types, with the method that needs no model."""
    common = ("--local", "--files", "files")
    done = run(
        *("fit", "--data", str(table), "--text-column", "body", "--label-column", "topic"),
        *("--method", "lexical", "--save", "saved", "--json", "fit.json", *common),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "winner: lexical" in done.stdout
    figures = json.loads((tmp_path / "fit.json").read_text())
    assert figures["winner"] == "lexical"
    assert figures["rows"][0]["test_mean"]["mean"] > 0.9

    new = tmp_path / "new.csv"
    new.write_text("body\nwheat and corn\nship and port\n")
    monkeypatch.chdir(tmp_path)
    predict = ("predict", "--data", str(new), "--text-column", "body", *common)
    done = run(*predict, "--model", "mine", "--output", "mine.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # The rest in this process: starting one takes seconds.
    for name, model in {
        "folder": "saved",
        "alias": "models:/mine@champion",
        "version": "models:/mine/1",
    }.items():
        assert main([*predict, "--model", model, "--output", f"{name}.csv"]) == 0
    # As a spreadsheet writes it in much of Europe, and in an encoding and with a delimiter of old.
    capsys.readouterr()
    new.write_text("id;body\n1;wheat and corn\n2;ship and port\n")
    assert main([*predict, "--model", "saved", "--output", "sheet.csv"]) == 0
    assert "assumed: new.csv: columns cut at ';'" in capsys.readouterr().out
    new.write_bytes("id^body\n1^wheat and corn café\n2^ship and port café\n".encode("cp1252"))
    assert main([*predict, "--model", "saved", "--output", "old.csv", "--delimiter", "^"]) == 2
    assert "it may be cp1252: say so by --encoding cp1252" in capsys.readouterr().err
    old = ("--output", "old.csv", "--delimiter", "^", "--encoding", "cp1252")
    assert main([*predict, "--model", "saved", *old]) == 0
    assert "assumed" not in capsys.readouterr().out
    for name in ("mine", "folder", "alias", "version", "sheet", "old"):
        lines = (tmp_path / f"{name}.csv").read_text().splitlines()
        assert [line.split(",")[3].strip('"') for line in lines] == ["label", "grain", "ship"]

    capsys.readouterr()
    assert main(["report", "--files", "files", "--markdown"]) == 0
    assert "lexical" in capsys.readouterr().out.splitlines()[2]


def test_doctor_finds_what_the_demo_needs(tmp_path: Path, capsys):
    figures = tmp_path / "doctor.json"
    assert main(["doctor", "--files", str(tmp_path / "files"), "--json", str(figures)]) == 0
    found = json.loads(figures.read_text())
    assert {"packages", "device", "energy", "minilm", "disk", "mlflow", "ray"} <= set(found)
    assert "actor" in found["ray"]["found"]
    counters = [*Path("/sys/class/powercap").glob("intel-rapl:*"), *Path("/dev").glob("nvidia0")]
    if not counters:
        assert "estimated" in found["energy"]["found"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["news", "files={"], "files: '{' is no value that YAML reads"),
        (["models=5"], "models: give a name, or several with commas between, not '5'"),
        (["models="], "models: give a name, or several with commas between, not 'None'"),
        (["models={a: b}"], "models: give a name"),
        (["models=[5]"], "models.0: input should be a valid string, got 5"),
        (["news", "model=other"], "name the models once: as words or by model=, not both"),
        (["news", "models=other"], "name the models once: as words or by models=, not both"),
        (["model=a", "models=b"], "give either model or models, not both"),
        (["model=nowhere"], "nowhere"),
        (["news", "limits.texts=100000"], "limits.texts: input should be less than or equal"),
    ],
)
def test_what_cant_be_served_is_one_sentence(
    capsys, monkeypatch, tmp_path: Path, words: list[str], sentence: str
):
    import serve

    # Names are looked up by a Ray that takes long to start: the settings are what is tested.
    monkeypatch.setattr(serve, "start", lambda settings, **_: _look_up(settings), raising=False)
    assert sentence in refused(capsys, "serve", *words, "--files", str(tmp_path))


def _look_up(settings):
    from serve.app import app

    app(settings.model_dump(exclude_unset=True))
