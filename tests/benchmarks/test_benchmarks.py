"""Every script of ``benchmarks/`` runs to its end, as it is documented, and writes its figures."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_bert import save_tiny_bert

from benchmarks.running import ROWS, TOPICS, Figures, command

ROOT = Path(__file__).parent.parent.parent
SCRIPTS = ROOT / "benchmarks"
SHARED = {"running", "head_loops"}  # imported by scripts
TRAIN, VALID = 72, 8  # a tenth of the small r8's training rows is held out
DEPTHS, WIDTH = 7, 32  # mean:1-5, cls:1 and the pooler of the small BERT
WITH_PEER = importlib.util.find_spec("sentence_transformers") is not None


def run(name: str, folder: Path, *words: str) -> dict[str, Any]:
    """What ``benchmarks/NAME.py --tiny`` writes, started in a folder where it leaves nothing."""
    here, file = folder / "here", folder / "results" / f"{name}.json"
    here.mkdir(parents=True)
    environment = {k: v for k, v in os.environ.items() if k != "LLMEMBED_DATA_DIR"}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / f"{name}.py"), *words, "--tiny", "--json", str(file)],
        cwd=here,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=560,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert not list(here.iterdir()), "something was written where it was started"
    assert [each.name for each in file.parent.iterdir()] == [file.name]
    found: dict[str, Any] = json.loads(file.read_text())
    typed = [word if not Path(word).is_absolute() else "PATH" for word in words]
    assert found["command"] == " ".join(
        ["python", f"benchmarks/{name}.py", *typed, "--tiny", "--json", "PATH"]
    )
    return found


def check_small_llama(folder: Path) -> None:
    found = run("small_llama", folder, str(folder / "llama"))
    # Of each of the 20 rows the text, its answer to all three tasks and to each.
    assert found["texts"] == 20 * (1 + 1 + 3)
    assert found["weights_bytes"] == (folder / "llama" / "model.safetensors").stat().st_size
    assert (folder / "llama" / "llmembed-untrained.json").is_file()


def check_head(folder: Path) -> None:
    found = run("head", folder)
    assert found["rows"] == {"train": TRAIN, "valid": VALID, "test": ROWS["test"]}
    for part in (found, found["authors_head"], found["recipes"]):
        assert [row["number"] for row in part["fusions"]] == list(range(1, 16))
    loop = sum(row["seconds_loop"] for row in found["fusions"])
    assert found["seconds_loop"] == pytest.approx(loop)
    assert found["speedup_vs_dataloader_loop"] == pytest.approx(loop / found["seconds_ours"])
    assert found["authors_head"]["settings"]["widths"] == [1024, 256]


def check_tune(folder: Path) -> None:
    found = run("tune", folder)
    # The paper's grid: 13 operators without σ, 3 with five values each.
    assert found["configurations"] == 13 + 3 * 5
    assert found["fits"] == found["trials_separate"] == found["configurations"]  # one seed
    assert found["trials_grouped"] < found["fits"]
    assert found["rows"] == TRAIN
    # float16 behind the header of a .npy, though its folder is gone by now
    assert found["array_mib"] * 2**20 == (TRAIN + VALID) * DEPTHS * WIDTH * 2 + 128
    assert found["speedup_grouped_vs_separate"] == pytest.approx(
        found["training_seconds_separate"] / found["training_seconds_grouped"]
    )
    assert [row["trials_at_once"] for row in found["memory"]] == [1, 2]
    assert all(row["private_mib_each"] < row["together_mib"] for row in found["memory"])


def check_paper_grid(folder: Path) -> None:
    out, files = folder / "out", folder / "files"
    # A sweep that is gone on with reads the model it began with.
    model = save_tiny_bert(folder / "model", " ".join(TOPICS.values()).split(), layers=5)
    words = ("--out", str(out), "--files", str(files), "--model", str(model))
    found = run("paper_grid", folder / "first", *words)["data"]["r8"]
    assert found == json.loads((out / "paper-grid-r8.json").read_text())
    assert len(found["configurations"]) == 13 + 3 * 5 and not found["failed"]
    table = (out / "paper-grid.md").read_text()
    assert "| fusion | σ | r8 |" in table
    for row in found["configurations"]:
        assert f"| {row['settings']['fusion']} | " in table
    # Without its figures the sweep is gone on with; named again, what is there is kept.
    (out / "paper-grid-r8.json").unlink()
    again = run("paper_grid", folder / "again", *words, "--corpora", "r8", "r8")["data"]
    assert list(again) == ["r8"] and again["r8"]["winner"] == found["winner"]


def check_extraction(folder: Path) -> None:
    found = run("extraction", folder)
    ours = found["seconds"]["ours"]
    assert set(found["seconds"]) == {"ours", *(("st_default", "st_same_dtype") * WITH_PEER)}
    if WITH_PEER:
        theirs = found["seconds"]["st_default"]
        assert found["speedup_vs_sentence_transformers"] == pytest.approx(theirs[0] / ours[0])
        assert found["cosine_to_fp32"]["min"] > 0.99
    assert found["texts"] == 20 and found["padded_texts"] == 12
    # [CLS] and [SEP] around at least five words, at most thirteen.
    assert 20 * 7 <= found["tokens"] <= 20 * 15
    assert set(found["padded_seconds"]) == {"ours_64", "padded_loop"}
    documents = {"40", "200"}
    assert set(found["ray_overhead"]) == set(found["ray_seconds"]) == documents


def check_serving(folder: Path) -> None:
    found = run("serving", folder)
    servers = {"ours", "empty", *(["plain"] * WITH_PEER)}
    assert set(found["servers"]) == servers
    for by_clients in found["servers"].values():
        assert set(by_clients) == {"1", "2"}
        assert all(each["requests_per_second"] > 0 for each in by_clients.values())
    # An empty application runs no model.
    assert found["servers"]["empty"]["1"]["model_p50_ms"] == 0
    assert found["servers"]["ours"]["1"]["model_p50_ms"] > 0
    assert ("throughput_ratio_vs_plain" in found) is WITH_PEER


def check_finetuning(folder: Path) -> None:
    found = run("finetuning", folder)
    killed = "2 workers, ZeRO 3, killed"
    assert list(found["ways"]) == ["this process", "1 worker", killed]
    for way in found["ways"].values():
        assert len(way["losses"]) == 4  # one of each step
    assert found["ways"]["1 worker"]["largest_relative_difference"] < 1e-6
    assert found["ways"][killed]["largest_relative_difference"] < 1e-3


def check_frozen(folder: Path) -> None:
    words = ("--out", str(folder / "out"))
    found = run("frozen", folder / "first", *words)["data"]["r8"]
    assert found["rows"] == {"train": TRAIN, "valid": VALID, "test": ROWS["test"]}
    methods = found["methods"]
    assert {"kernel", "frozen", "encoder"} <= set(methods)
    for name, row in methods.items():
        assert row["seeds"] == (2 if name in ("concat_b_r", "concat+lexical", "encoder") else 1)
        if name != "encoder":
            told = row["against_encoder"]
            assert told["difference"] == pytest.approx(row["test"] - methods["encoder"]["test"])
            assert told["low"] <= told["difference"] <= told["high"]
    # What is there is not done again.
    again = run("frozen", folder / "again", *words, "--resume")["data"]["r8"]
    assert again["methods"] == methods


def check_api_fuzz(folder: Path) -> None:
    pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    found = run("api_fuzz", folder)
    assert found["server_errors"] == found["errors"] == 0
    every, named = found["rounds"]
    assert every["operations"] > named["operations"] > 0
    assert found["cases"] == every["cases"] + named["cases"] >= every["operations"]


QUICK: dict[str, Callable[[Path], None]] = {"small_llama": check_small_llama}
LONGEST = ("paper_grid", "finetuning", "frozen", "serving")
"""Minutes each: `make test-slow` runs them, CI their siblings."""
SLOW: dict[str, Callable[[Path], None]] = {
    "api_fuzz": check_api_fuzz,
    "extraction": check_extraction,
    "finetuning": check_finetuning,
    "frozen": check_frozen,
    "head": check_head,
    "paper_grid": check_paper_grid,
    "serving": check_serving,
    "tune": check_tune,
}
EVERY = {**QUICK, **SLOW}


def test_every_script_is_run_here():
    assert {path.stem for path in SCRIPTS.glob("*.py")} - SHARED == set(EVERY)


def _marked(name: str) -> Any:
    marks = [pytest.mark.slow, *([pytest.mark.variant] if name in LONGEST else [])]
    return pytest.param(name, marks=marks)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [*QUICK, *(_marked(name) for name in SLOW)])
def test_a_tiny_run_goes_to_the_end_and_writes_its_figures(name, tmp_path):
    EVERY[name](tmp_path)


def options_of(script: Path) -> set[str]:
    """What its parser takes, read from its code."""

    def added(tree: ast.AST) -> set[str]:
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
        firsts = [c.args[0] for c in calls if ast.unparse(c.func).endswith("add_argument")]
        return {str(each.value) for each in firsts if isinstance(each, ast.Constant)}

    code = script.read_text(encoding="utf-8")
    found = added(ast.parse(code)) | {"--help"}
    for each in ast.parse((SCRIPTS / "running.py").read_text(encoding="utf-8")).body:
        if isinstance(each, ast.FunctionDef) and f"{each.name}(" in code:
            found |= added(each)
    return found


@pytest.mark.parametrize("name", sorted(EVERY))
def test_commands_that_are_written_down_name_options_that_exist(name):
    known = options_of(SCRIPTS / f"{name}.py")
    assert {"--json", "--tiny"} <= known
    docstring = ast.get_docstring(ast.parse((SCRIPTS / f"{name}.py").read_text())) or ""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *SCRIPTS.glob("*.py")]
    pages += [*(SCRIPTS / "results").iterdir(), *(ROOT / "llmembed/recipes").iterdir()]
    said = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", docstring))
    commands = 0
    for page in pages:
        for words in re.findall(rf"benchmarks/{name}\.py([^`\"\n]*)", page.read_text("utf-8")):
            commands += 1
            said |= set(re.findall(r"(?<![\w-])--[a-z][\w-]*", words))
    assert commands, "its own docstring says how it is called"
    assert said <= known


def test_figures_are_on_disk_as_they_come(tmp_path):
    file = tmp_path / "new" / "figures.json"
    file.parent.mkdir()
    file.write_text("{}")
    figures = Figures(file)
    figures.add(first=1)
    partial = json.loads((tmp_path / "new" / "figures.json.partial").read_text())
    assert partial["first"] == 1 and partial["command"] == command()
    assert file.read_text() == "{}"  # what an earlier run found stays until this one is over
    figures.add(second=2)
    figures.finish()
    assert json.loads(file.read_text()) == {**partial, "second": 2}
    assert list(file.parent.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path):
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(OSError, match="taken"):
        Figures(tmp_path / "taken" / "figures.json")


def test_commands_are_told_without_folders_of_this_machine(monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["/some/where/tune.py", "--store", "/tmp/a", "--data=/tmp/b", "--json", "c/d"]
    )
    assert command() == ("python benchmarks/tune.py --store PATH --data=PATH --json c/d")
