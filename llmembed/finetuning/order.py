"""Which rows make up which optimiser step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

GROUP_BATCHES = 50
"""So many batches are formed of rows sorted by length among themselves: little padding, and still
another choice of rows in every epoch."""


def order_of(
    lengths: npt.NDArray[np.int64], *, batch: int, steps: int, seed: int, grouped: bool = True
) -> npt.NDArray[np.int64]:
    """Row numbers, int64 (steps · batch,): each ``batch`` in a row is one step, with ``grouped`` of
    rows of like length.

    Every row comes once before any comes twice. It depends on the seed alone, not on how many
    workers share a batch or where a run was resumed.
    """
    rng = np.random.default_rng(seed)
    wanted = steps * batch
    passes = -(-wanted // len(lengths))
    stream = np.concatenate([rng.permutation(len(lengths)) for _ in range(passes)])[:wanted]
    if not grouped:
        return stream.astype(np.int64)
    found: list[npt.NDArray[np.int64]] = []
    for start in range(0, wanted, GROUP_BATCHES * batch):
        group = stream[start : start + GROUP_BATCHES * batch]
        batches = group[np.argsort(-lengths[group], kind="stable")].reshape(-1, batch)
        # Rows in a batch at random, so that workers get like shares of long and short ones.
        mixed = rng.permuted(batches, axis=1)
        found.append(rng.permutation(mixed).reshape(-1))
    return np.concatenate(found).astype(np.int64)


class Ordered(Dataset[int]):
    """The row numbers of every step, one after another: the Trainer sees a single long epoch."""

    def __init__(self, order: np.ndarray) -> None:
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: int) -> int:
        return int(self._order[place])
