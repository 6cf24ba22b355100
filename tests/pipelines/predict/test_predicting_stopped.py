"""``predict`` on large files through a real Ray: killed, interrupted in the middle; its memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from topic_files import (
    labelled,
    text_of,
    topic_of,
    write_csv,
)

from llmembed.errors import ConfigError
from llmembed.pipelines.predict import predict
from llmembed.pipelines.predict.command import CHUNK_ROWS

BIG = 80_000
"""Rows: seconds of work, so that a kill comes in the middle."""


@pytest.fixture
def big(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "big.csv", range(BIG))


def start(model: str, data: Path, output: Path) -> subprocess.Popen[str]:
    """The command line, in a process group of its own as a terminal has it."""
    words = ["predict", "--model", model, "--data", str(data), "--text-column", "body"]
    return subprocess.Popen(
        [sys.executable, "-m", "llmembed", *words, "--output", str(output)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Below a shell's background job it would be ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
        cwd=data.parent,
    )


def wait_for_parts(output: Path, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while len(list(output.glob("part-*"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "no parts within two minutes"
        time.sleep(0.01)


def settled(output: Path) -> dict[str, int]:
    """The parts and when they were written, once orphaned workers have ended."""
    seen: dict[str, int] = {}
    while True:
        now = {path.name: path.stat().st_mtime_ns for path in output.glob("part-*")}
        if now == seen:
            return now
        seen = now
        time.sleep(1.5)


def check_whole(output: Path, rows: int) -> None:
    found = labelled(output)
    assert [row["index"] for row in found] == list(range(rows))
    assert all(row["label"] == topic_of(row["index"]) for row in found[::97])


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stopped(
    local_ray: None, model: str, tmp_path: Path, big: Path
) -> None:
    output = tmp_path / "labels"
    process = start(model, big, output)
    wait_for_parts(output, 5, process)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            worker.kill()
    process.communicate()
    before = settled(output)
    assert 5 <= len(before) < BIG // CHUNK_ROWS
    kept = sum(pq.read_metadata(output / name).num_rows for name in before)
    (output / ".part-00000-000117.parquet.99").write_bytes(b"half a part")
    settings: dict[str, Any] = {"model": model, "text_column": "body", "output": str(output)}
    done = predict(**settings, data=[str(big)])
    assert (done.rows, done.reused_rows) == (BIG, kept)
    check_whole(output, BIG)
    after = settled(output)
    assert {name: after[name] for name in before} == before
    assert not list(output.glob(".part-*"))
    assert pq.read_table(output).num_rows == BIG
    with big.open("a") as file:
        file.write(f"{BIG},crude\n")
    with pytest.raises(ConfigError, match=r"labels of another run \(not the same data\)"):
        predict(**settings, data=[str(big)])


@pytest.mark.slow
def test_ctrl_c_stops_at_once_and_loses_nothing(model: str, tmp_path: Path, big: Path) -> None:
    output = tmp_path / "labels"
    process = start(model, big, output)
    wait_for_parts(output, 3, process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    lines = [line for line in err.splitlines() if line.startswith("llmembed predict: ")]
    assert len(lines) == 1 and "stopped" in lines[0]
    assert "Traceback" not in err and "labelled" not in out
    assert 3 <= len(settled(output)) < BIG // CHUNK_ROWS


@pytest.mark.variant
@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(model: str, tmp_path: Path) -> None:
    """The driver's peak on 300 MB stays within 150 MB of its peak on 3 MB; more than 5,000 rows
    a second are labelled."""
    code = (
        "import sys, json, resource\n"
        "from llmembed.pipelines.predict import predict\n"
        "done = predict(model=sys.argv[1], data=[sys.argv[2]], text_column='body',\n"
        "               output=sys.argv[2] + '.out.parquet')\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "print(json.dumps([peak, done.rows, done.seconds]))\n"
    )
    figures = {}
    for name, rows in (("small", 12_000), ("large", 1_600_000)):
        path = tmp_path / f"{name}.csv"
        long = [" ".join(text_of(row + k) for k in range(5)) for row in range(60)]
        with path.open("w") as file:
            file.write("body\n")
            file.writelines(f"{long[row % 60]} n{row}\n" for row in range(rows))
        ran = subprocess.run(
            [sys.executable, "-c", code, model, str(path)],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        figures[name] = json.loads(ran.stdout.splitlines()[-1])
        assert figures[name][1] == rows
    assert (tmp_path / "large.csv").stat().st_size > 300e6
    assert figures["large"][0] - figures["small"][0] < 150, figures
    assert figures["large"][1] / figures["large"][2] > 5000, figures
