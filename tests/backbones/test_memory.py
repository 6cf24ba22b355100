"""Out of memory halves the budget and goes on, under a real limit of the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from llmembed.backbones.batching import Work, is_out_of_memory, run_batches
from llmembed.errors import ModelError

# Loads, embeds a little (threads, caches), then may take only so many MiB more; and once more with
# all the memory there is.
PROGRAM = """
import resource, sys
from pathlib import Path
import numpy as np
from llmembed.backbones import Backbone, resolve

folder, reference, out = sys.argv[1:]
spec = resolve(folder, reads="mean:1-2", dtype="float32")
texts = ["oil prices rose " * (n % 30 + 1) for n in range(400)]
for name, mib in (("scarce", 48), ("plenty", None)):
    backbone = Backbone(
        spec, device="cpu", threads=1, token_budget=1_000_000, reference=reference == "yes"
    )
    tokens = backbone.tokeniser(texts)
    backbone.embed(backbone.tokeniser(texts[:4]))
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if mib is not None:
        resource.setrlimit(resource.RLIMIT_AS, (used + mib * 2**20, hard))
    vectors = backbone.embed(tokens)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    np.save(Path(out) / f"{name}.npy", vectors)
    print(name, backbone.work.halvings)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's own figures")
@pytest.mark.parametrize("kind, reference", [("bert", False), ("llama", True)])
def test_a_real_limit_halves_the_budget(tiny, tmp_path, kind, reference):
    folder = tiny(kind, layers=2, width=256)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, "yes" if reference else "no", tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    halvings = {name: int(count) for name, count in map(str.split, done.stdout.splitlines())}
    assert halvings["scarce"] > 0
    assert halvings["plenty"] == 0
    wanted = np.load(tmp_path / "plenty.npy")
    found = np.load(tmp_path / "scarce.npy")
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_one_text_too_large_is_refused_in_a_sentence():
    def never(batch: np.ndarray, length: int) -> int:
        raise MemoryError

    work = Work()
    with pytest.raises(ModelError, match="single text of 9 tokens"):
        run_batches(np.array([4, 9, 2]), never, budget=64, work=work)
    assert work.batches == 0


def test_the_budget_that_held_is_kept_and_every_window_is_done_once():
    done: list[int] = []

    def forward(batch: np.ndarray, length: int) -> int:
        if len(batch) * length > 20:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …")
        done.extend(batch.tolist())
        return len(batch) * length

    work = Work()
    lengths = np.array([5, 1, 7, 3, 2, 7, 1, 4])
    budget = run_batches(lengths, forward, budget=100, work=work)
    assert sorted(done) == list(range(8))
    assert budget <= 20
    assert work.tokens == lengths.sum()
    assert work.halvings > 0


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "could not create a memory object",
    ],
)
def test_libraries_say_it_in_their_own_words(words):
    assert is_out_of_memory(RuntimeError(words))


def test_other_errors_are_not_taken_for_it():
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))

    def forward(batch: np.ndarray, length: int) -> int:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run_batches(np.array([3]), forward, budget=8, work=Work())
