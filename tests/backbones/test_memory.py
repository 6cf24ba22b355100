"""Out of memory halves the budget and goes on, under a real limit of the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from llmembed.backbones.batching import Work, is_out_of_memory, run_batches
from llmembed.errors import ModelError

# Loads, embeds a little (threads, caches), then may take only so many MiB more.
PROGRAM = """
import resource, sys
from pathlib import Path
import numpy as np
from llmembed.backbones import Backbone, resolve
from llmembed.errors import ModelError

folder, reference, budget, mib, out = sys.argv[1:]
backbone = Backbone(
    resolve(folder, reads="mean:1-2", dtype="float32"), device="cpu", threads=1,
    token_budget=int(budget), reference=reference == "yes",
)
texts = ["oil prices rose " * (n % 30 + 1) for n in range(800)]
tokens = backbone.tokeniser(texts)
small = backbone.tokeniser(texts[:4])
backbone.embed(small)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
limit = used + int(mib) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    vectors = backbone.embed(tokens)
except ModelError as error:
    print("refused", error)
else:
    np.save(out, vectors)
    print("halvings", backbone.work.halvings)
"""


def run(folder: Path, reference: bool, budget: int, mib: int, out: Path) -> str:
    arguments = [str(folder), "yes" if reference else "no", str(budget), str(mib), str(out)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's own figures")
@pytest.mark.parametrize("kind, reference", [("bert", False), ("llama", True)])
def test_a_real_limit_halves_the_budget(tiny, tmp_path, kind, reference):
    folder = tiny(kind, layers=2, width=256)
    plenty = run(folder, reference, 1_000_000, 16_000, tmp_path / "plenty.npy")
    assert plenty == "halvings 0"
    scarce = run(folder, reference, 1_000_000, 48, tmp_path / "scarce.npy")
    assert scarce.startswith("halvings ")
    assert int(scarce.split()[1]) > 0
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
