"""``embed`` in processes that are killed, or that run at once on one store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bert import make_texts

from llmembed.cluster import LocalRuntime
from llmembed.embeddings import Store, embed

PROGRAM = Path(__file__).with_name("embed_program.py")
ENVIRONMENT = {
    **{k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
    "PYTHONPATH": os.pathsep.join([str(PROGRAM.parent.parent), *sys.path]),
}


def start(kind: str, files: Path, model: Path, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), kind, str(files), str(model), str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )


def wait_for_parts(store: Store, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while len(store.parts()) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "no part was written"
        time.sleep(0.002)


def assert_right(vectors: np.ndarray, spec: Any, texts: list[str]) -> None:
    from llmembed.backbones import embed_texts

    wanted = embed_texts(spec, texts)
    np.testing.assert_allclose(vectors.astype(np.float32), wanted, atol=4e-3, rtol=2e-3)


@pytest.mark.parametrize("kind", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_after_a_killed_driver_only_what_is_missing_is_embedded(
    kind: str, tmp_path: Path, tiny_bert: Path, tiny_spec: Any
) -> None:
    store = Store(tmp_path, tiny_spec)
    process = start(kind, tmp_path, tiny_bert, 3000)
    try:
        wait_for_parts(store, 5, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    time.sleep(0 if kind == "local" else 3)  # workers notice and end
    held = sum(len(store.head(name).keys) for name in store.parts())
    assert 0 < held < 3000
    for name in store.parts():
        store.read(name)  # raises if broken
    texts = make_texts(3000)
    got = embed(tiny_spec, texts, LocalRuntime(tmp_path))
    assert (got.computed, got.reused, got.damaged) == (3000 - held, held, ())
    some = slice(0, 3000, 50)
    assert_right(got.vectors[some], tiny_spec, texts[some])


@pytest.mark.slow
def test_two_processes_at_once_do_no_harm(tmp_path: Path, tiny_bert: Path, tiny_spec: Any) -> None:
    processes = [start("local", tmp_path, tiny_bert, 400) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    counts = [[int(word) for word in out.split()] for out, _ in said]
    assert all(computed + reused == rows == 400 for computed, reused, rows in counts)
    texts = make_texts(400)
    got = embed(tiny_spec, texts[::-1], LocalRuntime(tmp_path))
    assert got.computed == 0 and got.damaged == ()
    assert_right(got.vectors, tiny_spec, texts[::-1])
    # Work counts once, although both may have done it.
    assert got.usage.tokens == int(got.tokens.sum())
