"""Which windows go through the model together, and what to do when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmembed.errors import ModelError

# What torch, oneDNN, the C++ library, cuBLAS and cuDNN say when an allocation fails.
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "bad_alloc",
    "could not create a memory",
    "out of memory",
    "status_alloc_failed",
)


Forward = Callable[[npt.NDArray[np.int64], int], int]
"""Takes a batch's windows (B,) and the length of the longest; returns the positions it computed."""


@dataclass(kw_only=True)
class Work:
    """What passed through a model so far. ``positions`` are tokens and padding together."""

    tokens: int = 0
    positions: int = 0
    batches: int = 0
    halvings: int = 0

    @property
    def padding(self) -> float:
        """The share of positions that held padding."""
        return 1 - self.tokens / self.positions if self.positions else 0.0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that an allocation failed, on a GPU or on the CPU."""
    import torch

    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY)


def run_batches(
    lengths: npt.NDArray[np.int64],
    forward: Forward,
    *,
    budget: int,
    work: Work,
    fixed_length: int | None = None,
) -> int:
    """Send windows through ``forward`` in batches of at most ``budget`` positions.

    ``lengths`` (W,) in tokens. The longest go first, so that memory runs out at the start if it
    does at all. ``fixed_length``: what each is padded to, where it is not the longest. When
    memory runs out the budget is halved and the batch formed anew, down to one window. Returns
    the budget that held; raises ``ModelError`` when one window alone is too much.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        length = fixed_length or int(lengths[order[start]])
        batch = order[start : start + max(1, budget // length)]
        positions = _positions_if_fits(forward, batch, length)
        if positions is not None:
            start += len(batch)
            work.tokens += int(lengths[batch].sum())
            work.positions += positions
            work.batches += 1
            continue
        if len(batch) == 1:
            raise ModelError(
                f"out of memory with a single text of {length} tokens: lower max_tokens, or use "
                "a smaller model or a machine with more memory"
            )
        _free_cached()
        budget = length * len(batch) // 2
        work.halvings += 1
    return budget


def _free_cached() -> None:
    """Give back what torch keeps of the GPU's memory: blocks of the failed batch's sizes are of
    little use to a smaller one, and cuBLAS and cuDNN allocate beside torch."""
    import torch

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()


def _positions_if_fits(forward: Forward, batch: npt.NDArray[np.int64], length: int) -> int | None:
    # Its own function, so that the failed attempt's tensors are gone before the next one.
    try:
        return forward(batch, length)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return None
