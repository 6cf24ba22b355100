"""Kernels over a text's features: what a closed-form head is made of.

Two sides of a text enter. Dense features (N, F), standardised over the training rows: ``rbf`` is
exp(-‖z - z′‖² / width) with the median squared distance between training rows for width,
``arc_cosine`` that of order 1 (Cho and Saul 2009), scaled so that a row with itself gives 1, and
``linear`` z·z′ / width with F for width. And sparse rows of terms (N, F), each of length at most 1,
whose kernel is linear. So a row with itself gives about 1 in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

SAMPLE = 2000
"""Rows between which the median distance is taken."""
SHARED = 0.05
"""Terms in more than this share of the rows are multiplied as a dense matrix, the others as a
sparse one: products of sparse rows cost by the pairs of texts that share a term."""
COLUMNS = 8192
"""At most so many columns of that dense matrix at a time."""


def _rbf(a: Tensor, b: Tensor, width: float, squared: Tensor | None = None) -> Tensor:
    return squared_distances(a, b, squared).div_(-width).exp_()


def _arc_cosine(a: Tensor, b: Tensor, width: float, squared: Tensor | None = None) -> Tensor:
    squared = squared_lengths(b) if squared is None else squared
    lengths = a.norm(dim=1).clamp_min(1e-12), squared.sqrt().clamp_min(1e-12)
    cosine = (a @ b.T).div_(lengths[0][:, None]).div_(lengths[1][None]).clamp_(-1, 1)
    angle = torch.acos(cosine)
    return (torch.sin(angle) + (torch.pi - angle) * cosine).div_(torch.pi)


def _linear(a: Tensor, b: Tensor, width: float, squared: Tensor | None = None) -> Tensor:
    return (a @ b.T).div_(width)


KERNELS: dict[str, Callable[..., Tensor]] = {
    "rbf": _rbf,
    "arc_cosine": _arc_cosine,
    "linear": _linear,
}
"""Name -> function of rows (N, F) and (M, F), the width and, where it is known, ``squared_lengths``
of the latter: (N, M)."""


def squared_lengths(rows: Tensor) -> Tensor:
    """(M, F) -> (M,)."""
    return (rows * rows).sum(1)


def squared_distances(a: Tensor, b: Tensor, squared: Tensor | None = None) -> Tensor:
    """(N, F) and (M, F) -> (N, M). ``squared``: the squared lengths of ``b``, where known."""
    squared = squared_lengths(b) if squared is None else squared
    found = torch.addmm(squared[None], a, b.T, alpha=-2)
    return found.add_(squared_lengths(a)[:, None]).clamp_min_(0)


def median_distance(rows: Tensor, *, seed: int = 0) -> float:
    """Of the squared distances between at most ``SAMPLE`` of ``rows`` (N, F); 1 where all are
    alike."""
    if len(rows) > SAMPLE:
        drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        rows = rows[drawn[:SAMPLE].to(rows.device)]
    rows = rows.float()
    above = torch.triu_indices(len(rows), len(rows), 1)
    distances = squared_distances(rows, rows)[above[0], above[1]]
    median = float(distances.median()) if len(distances) else 0.0
    return median if median > 0 else 1.0


def terms_kernel(a: Any, b: Any) -> npt.NDArray[np.float32]:
    """Sparse (N, F) and (M, F) -> dense float32 (N, M)."""
    shared = np.flatnonzero(np.bincount(b.indices, minlength=b.shape[1]) > SHARED * b.shape[0])
    rare = np.ones(b.shape[1], dtype=bool)
    rare[shared] = False
    found: npt.NDArray[np.float32] = (a[:, rare] @ b[:, rare].T).toarray().astype(np.float32)
    total = torch.from_numpy(found)
    for start in range(0, len(shared), COLUMNS):
        columns = shared[start : start + COLUMNS]
        left, right = (torch.from_numpy(each[:, columns].toarray()) for each in (a, b))
        total.addmm_(left, right.T)
    return found
