"""``predict`` with classifiers that ask: a real server that counts, killed, resumed, limited."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openai_faults import WORDS
from openai_server import OpenAIServer
from tiny_llama import save_tiny_llama

from llmembed.cli import main
from llmembed.cluster import LocalRuntime
from llmembed.contract import Examples, Silent, Task
from llmembed.errors import BudgetError, ConfigError, NoAnswerError
from llmembed.generation import ResponseCache
from llmembed.generation.building import build_generator
from llmembed.methods.prompted.prompt import Prompting
from llmembed.permissions import Allowed
from llmembed.pipelines.predict import predict
from llmembed.pipelines.predict.command import CHUNK_ROWS

TOPIC = Task(name="topic", classes=("grain", "oil"))
ROWS = 2 * CHUNK_ROWS + 300


def text_of(row: int) -> str:
    return f"report {row}: the {TOPIC.classes[row % 3 == 0]} trade"


def reader(messages: list[dict[str, str]]) -> str:
    text = messages[-1]["content"].rsplit("<<< text", 1)[-1]
    return "oil" if "oil" in text else "grain"


def save(folder: Path, generator: dict[str, Any]) -> Path:
    empty = Examples(texts=[], labels={"topic": np.zeros(0, dtype=np.int64)})
    method = Prompting(generator=build_generator(generator), style="zero_shot", max_answer_tokens=4)
    method.fit([TOPIC], empty, empty, LocalRuntime(folder), Silent()).save(folder)
    return folder


@pytest.fixture
def server():
    with OpenAIServer(reader) as server:
        yield server


@pytest.fixture
def model(server: OpenAIServer, tmp_path: Path) -> str:
    described = {
        "kind": "endpoint",
        "model": "scripted",
        "base_url": server.url,
        "api_key_env": None,
        "concurrency": 8,
        "retries": 0,
    }
    return str(save(tmp_path / "model", described))


def allowing(server: OpenAIServer) -> Allowed:
    return Allowed(endpoints=(server.url,))


def write(path: Path, rows: int) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["text"], *([text_of(row)] for row in range(rows))])
    return path


def labels(folder: Path) -> list[str]:
    parts = [pq.read_table(part) for part in sorted(folder.glob("part-*.parquet"))]
    found: list[str] = pa.concat_tables(parts)["label"].to_pylist()
    return found


def column(file: Path, name: str) -> list[str]:
    with file.open() as opened:
        return [row[name] for row in csv.DictReader(opened)]


def right(rows: int) -> list[str]:
    return [TOPIC.classes[row % 3 == 0] for row in range(rows)]


def test_killed_in_the_middle_and_resumed_without_paying_twice(server, model, tmp_path):
    data, output = write(tmp_path / "a.csv", ROWS), tmp_path / "labels"
    words = ["--model", model, "--data", str(data), "--output", str(output)]
    words += ["--allow-endpoint", server.url]
    process = subprocess.Popen(
        [sys.executable, "-m", "llmembed", "predict", *words, "--files", str(tmp_path / "files")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 120
    while len(server.calls) < CHUNK_ROWS + 200:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    time.sleep(0.3)
    first = len(server.calls)
    assert CHUNK_ROWS + 200 <= first < ROWS
    assert [part.name for part in output.glob("part-*")] == ["part-00000-000000.parquet"]
    kept = ResponseCache(tmp_path / "files" / "responses.sqlite").count()
    assert first - 8 <= kept <= first, "all but those under way"
    done = predict(
        model=model, data=[str(data)], text_column="text", output=str(output),
        files=str(tmp_path / "files"), allowed=allowing(server),
    )  # fmt: skip
    assert (done.rows, done.reused_rows, done.unread_rows) == (ROWS, CHUNK_ROWS, 0)
    assert done.paid.calls == len(server.calls) - first == ROWS - kept
    assert done.usage.calls == ROWS - CHUNK_ROWS, "kept answers bear what they took"
    assert labels(output) == right(ROWS)
    assert server.most_at_once <= 8


def test_the_budget_is_held_over_all_chunks(server, model, tmp_path, capsys):
    rows = CHUNK_ROWS + 300
    data = write(tmp_path / "a.csv", rows)
    settings = {
        "model": model,
        "data": [str(data)],
        "text_column": "text",
        "output": str(tmp_path / "labels"),
        "files": str(tmp_path / "files"),
        "allowed": allowing(server),
    }
    predict(**{**settings, "data": [str(write(tmp_path / "b.csv", 2))],
               "output": str(tmp_path / "two.csv")})  # fmt: skip
    each = (server.prompt_tokens + server.completion_tokens) // 2
    before = server.prompt_tokens + server.completion_tokens
    # More than a chunk's, less than all's.
    limit = each * (CHUNK_ROWS + 150)
    with pytest.raises(BudgetError, match="is kept"):
        predict(**settings, budget_tokens=limit)
    spent = server.prompt_tokens + server.completion_tokens - before
    assert each * CHUNK_ROWS < spent <= limit
    calls = len(server.calls)
    done = predict(**settings, budget_usd=1.0, token_prices=(0.001, 0.002))
    assert done.paid.calls == len(server.calls) - calls
    assert len(server.calls) == rows, "nothing was asked twice"
    expected = done.paid.prompt_tokens * 1e-6 + done.paid.completion_tokens * 2e-6
    assert done.paid_usd == pytest.approx(expected, rel=0.01)  # and a little energy
    assert labels(tmp_path / "labels") == right(rows)
    assert "at the default" not in capsys.readouterr().out


def test_a_server_that_goes_down_stops_the_run(server, model, tmp_path):
    data = write(tmp_path / "a.csv", 60)
    settings = {
        "model": model,
        "data": [str(data)],
        "text_column": "text",
        "output": str(tmp_path / "labels.jsonl"),
        "files": str(tmp_path / "files"),
        "allowed": allowing(server),
    }
    server.fail(*[""] * 10, *["500"] * 100)
    with pytest.raises(NoAnswerError, match="no answer to 20 calls in a row"):
        predict(**settings)
    assert not (tmp_path / "labels.jsonl").exists()
    server.faults.clear()
    before = len(server.calls)
    done = predict(**settings)
    assert len(server.calls) - before == 50
    assert (done.unread_rows, done.unanswered_rows) == (0, 0)
    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == right(60)


@pytest.mark.parametrize("output", ["labels", "labels.csv"])
def test_rows_without_an_answer_stay_undone(output, server, model, tmp_path, capsys):
    target = tmp_path / output
    # A chunk each.
    data = [str(write(tmp_path / "a.csv", 20)), str(write(tmp_path / "b.csv", 30))]
    words = ["predict", "--model", model, "--data", *data, "--output", str(target)]
    words += ["--files", str(tmp_path / "files"), "--json", str(tmp_path / "told.json"), "--local"]
    words += ["--allow-endpoint", server.url]
    away = {text_of(row) for row in (23, 27)}
    server.fault_of = lambda m: "503" if any(text in m[-1]["content"] for text in away) else ""
    assert main(words) == 1
    said = capsys.readouterr()
    assert "2 of 50 texts got no answer" in said.err and "503" in said.err
    assert "the same command asks only for the 2" in said.err
    assert "30 texts are still to be labelled" in said.out
    told = json.loads((tmp_path / "told.json").read_text())
    assert (told["rows"], told["open_rows"], told["unanswered_rows"]) == (20, 30, 2)
    folder = target if output == "labels" else tmp_path / "labels.csv.parts"
    assert [part.name for part in folder.glob("part-*")] == ["part-00000-000000.parquet"]
    assert output == "labels" or not target.exists()
    server.fault_of = lambda _: ""
    before = len(server.calls)
    assert main(words) == 0
    assert len(server.calls) - before == 2, "only what is missing is asked"
    found = labels(target) if output == "labels" else column(target, "label")
    assert found == [*right(20), *right(30)]


def test_a_refused_text_is_named_and_counted_again(server, model, tmp_path, capsys):
    settings = {
        "model": model,
        "data": [str(write(tmp_path / "a.csv", 30))],
        "text_column": "text",
        "output": str(tmp_path / "labels"),
        "files": str(tmp_path / "files"),
        "allowed": allowing(server),
    }
    server.fault_of = lambda m: "filtered" if text_of(17) in m[-1]["content"] else ""
    done = predict(**settings)
    assert done.unread_rows == 1 and done.unanswered_rows == 0
    (refused,) = done.refused
    assert refused.startswith(f"{settings['data'][0]}, row 17: ") and WORDS["filtered"] in refused
    assert labels(tmp_path / "labels") == [*right(17), None, *right(30)[18:]]
    assert "row 17" in capsys.readouterr().out.replace("\n", " ")
    again = predict(**settings)
    assert (again.reused_rows, again.unread_rows) == (30, 1)
    assert "1 texts got no readable answer" in capsys.readouterr().out


def test_limits_that_hold_nothing_are_refused(server, model, tmp_path):
    settings: dict[str, Any] = {
        "data": [str(write(tmp_path / "a.csv", 3))],
        "text_column": "text",
        "output": str(tmp_path / "labels.csv"),
        "local": True,
        "files": str(tmp_path / "files"),
    }
    with pytest.raises(ConfigError, match="--budget-usd 0"):
        predict(model=model, **settings, budget_usd=0.0, allowed=allowing(server))
    tiny = save_tiny_llama(tmp_path / "tiny")
    local = save(tmp_path / "local", {"kind": "local", "model": str(tiny)})
    with pytest.raises(ConfigError, match="asks no endpoint"):
        predict(model=str(local), **settings, budget_tokens=9)


@pytest.mark.parametrize("where", ["here", pytest.param("actors", marks=pytest.mark.slow)])
def test_a_local_model_answers_a_text_once(where, local_ray, tmp_path):
    tiny = save_tiny_llama(tmp_path / "tiny")
    local = save(tmp_path / "local", {"kind": "local", "model": str(tiny)})
    settings: dict[str, Any] = {
        "model": str(local),
        "data": [str(write(tmp_path / "a.csv", 30))],
        "text_column": "text",
        "files": str(tmp_path / "files"),
        "local": where == "here",
    }
    first = predict(**settings, output=str(tmp_path / "one"))
    cache = ResponseCache(tmp_path / "files" / "responses.sqlite")
    assert cache.count() == 30
    second = predict(**settings, output=str(tmp_path / "two"))
    assert cache.count() == 30
    assert labels(tmp_path / "one") == labels(tmp_path / "two")
    assert second.usage.tokens == first.usage.tokens > 0
    assert second.paid.calls == 0
