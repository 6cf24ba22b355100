"""Ridge regression on indicators of the classes, in closed form.

Y (N, C) holds 1 for a class that a text has and 0 for the others, b (C,) are the classes' shares
among the rows fitted on. With a kernel K (N, N) the coefficients are A = (K + λD)⁻¹(Y - b), D the
inverse weights of the rows (1 where nothing is weighted); a text x is answered k(x)A + b. What a
row would have been answered that was left out is found by fitting the others.

Where N rows are too many, the answer is restricted to M of them, the landmarks (Nyström): features
φ(x) = k(x)R⁻¹ with RᵀR = K of the landmarks, and a ridge in these M dimensions; a text then costs M
kernel values, and A has M rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmembed.errors import ConfigError

Rows = npt.NDArray[np.int64]
JITTERS = (1e-5, 1e-4, 1e-3, 1e-2)
"""Added to the diagonal of the landmarks' kernel, whose own is about 1: the first that will do."""
BLOCK = 4096
"""Rows whose features are in memory at a time."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows to fit on, and rows that this fit has not seen."""

    fitted: Rows
    held: Rows

    def within(self, rows: Rows) -> Split:
        """Those of them that are among ``rows``."""
        return Split(fitted=np.intersect1d(self.fitted, rows), held=np.intersect1d(self.held, rows))

    def renumbered(self, rows: Rows) -> Split:
        """Their places in ``rows``, which are sorted and hold them all."""
        return Split(
            fitted=np.searchsorted(rows, self.fitted), held=np.searchsorted(rows, self.held)
        )


def indicators(labels: npt.NDArray[Any], classes: int) -> npt.NDArray[np.float32]:
    """Y, float32 (N, C)."""
    if labels.ndim == 2:
        return labels.astype(np.float32)
    found: npt.NDArray[np.float32] = np.eye(classes, dtype=np.float32)[labels]
    return found


def solve(gram: Tensor, targets: Tensor, ridge: Tensor) -> Tensor:
    """A (N, C), of K (N, N), Y - b (N, C) and λD (N,). ``gram`` is left as it is.

    Where rounding in float32 makes the matrix lose its rank, in float64."""
    for dtype in (torch.float32, torch.float64):
        matrix = gram.to(dtype, copy=True)
        matrix.diagonal().add_(ridge.to(dtype))
        factor, failed = torch.linalg.cholesky_ex(matrix)
        if not int(failed):
            found: Tensor = torch.cholesky_solve(targets.to(dtype), factor).float()
            return found
    matrix = gram.double()
    matrix.diagonal().add_(ridge.double())
    solved: Tensor = torch.linalg.lstsq(matrix, targets.double()).solution.float()
    return solved


def left_out(gram: Tensor, targets: Tensor, ridge: Tensor, splits: Sequence[Split]) -> Tensor:
    """What fits that have not seen them say of the held rows, float32 (N, C); NaN for rows that are
    never held."""
    found = torch.full_like(targets, torch.nan)
    for split in splits:
        fitted, held = (
            torch.from_numpy(each).to(gram.device) for each in (split.fitted, split.held)
        )
        bias = targets[fitted].mean(0)
        own = gram[fitted][:, fitted]
        coefficients = solve(own, targets[fitted] - bias, ridge[fitted])
        found[held] = gram[held][:, fitted] @ coefficients + bias
    return found


class Landmarks:
    """Sums over all rows of what a ridge over landmarks needs, by split.

    ``kernel``: rows -> their kernel values with the landmarks, float32 (B, M); ``own`` (M, M) that
    of the landmarks. ``weights`` (N,) of the rows.
    """

    def __init__(
        self,
        kernel: Callable[[Rows], Tensor],
        own: Tensor,
        targets: Tensor,
        weights: Tensor,
        splits: Sequence[Split],
    ) -> None:
        self._kernel, self._targets, self._splits = kernel, targets, splits
        self._root = _root(own)
        count = len(targets)
        # A row's products go where its split is, those never held to the end.
        self._part = np.full(count, len(splits))
        for number, split in enumerate(splits):
            self._part[split.held] = number
        size, classes = own.shape[0], targets.shape[1]
        parts = len(splits) + 1
        place = own.device
        self._square = [torch.zeros(size, size, device=place) for _ in range(parts)]
        self._towards = torch.zeros(parts, size, classes, device=place)
        self._sum = torch.zeros(parts, size, device=place)
        self._shares = torch.zeros(parts, classes, device=place)
        self._count = torch.zeros(parts, device=place)
        for number in range(parts):
            rows = np.flatnonzero(self._part == number)
            for start in range(0, len(rows), BLOCK):
                own_rows = rows[start : start + BLOCK]
                index = torch.from_numpy(own_rows).to(place)
                phi = self._features(own_rows)
                weighted = phi * weights[index, None]
                self._square[number].addmm_(weighted.T, phi)
                self._towards[number].addmm_(weighted.T, targets[index])
                self._sum[number] += weighted.sum(0)
                self._shares[number] += targets[index].sum(0)
                self._count[number] += len(own_rows)

    def _features(self, rows: Rows) -> Tensor:
        found: Tensor = torch.linalg.solve_triangular(self._root, self._kernel(rows).T, upper=False)
        return found.T

    def _weights(self, parts: Sequence[int], penalty: float) -> tuple[Tensor, Tensor]:
        chosen = list(parts)
        bias = self._shares[chosen].sum(0) / self._count[chosen].sum()
        towards = self._towards[chosen].sum(0) - torch.outer(self._sum[chosen].sum(0), bias)
        square = torch.stack([self._square[part] for part in chosen]).sum(0)
        ridge = torch.full((len(square),), penalty, device=square.device)
        return solve(square, towards, ridge), bias

    def left_out(self, penalties: Sequence[float]) -> list[Tensor]:
        """As ``left_out``, for each of ``penalties``."""
        found = [torch.full_like(self._targets, torch.nan) for _ in penalties]
        everything = range(len(self._splits) + 1)
        for number, split in enumerate(self._splits):
            fits = [
                self._weights([part for part in everything if part != number], penalty)
                for penalty in penalties
            ]
            for start in range(0, len(split.held), BLOCK):
                rows = split.held[start : start + BLOCK]
                phi = self._features(rows)
                for out, (weights, bias) in zip(found, fits, strict=True):
                    out[torch.from_numpy(rows).to(out.device)] = phi @ weights + bias
        return found

    def solve(self, penalty: float, *, seen: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """A (M, C) and b (C,), fitted on the rows of the splits ``seen``, by default on all."""
        parts = range(len(self._splits) + 1) if seen is None else seen
        weights, bias = self._weights(list(parts), penalty)
        return torch.linalg.solve_triangular(self._root.T, weights, upper=True), bias


def _root(gram: Tensor) -> Tensor:
    """Lower triangular, float32 (M, M), of a kernel that may have lost its rank."""
    for jitter in JITTERS:
        matrix = gram.double()
        matrix.diagonal().add_(jitter)
        root, failed = torch.linalg.cholesky_ex(matrix)
        if not int(failed):
            found: Tensor = root.float()
            return found
    raise ConfigError("the landmarks' kernel has no root: their features may not be finite")
