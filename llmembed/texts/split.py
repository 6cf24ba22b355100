"""Rows held out of a training set: stratified, seeded, equal texts kept on one side."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def hold_out(groups: Rows, strata: Rows, *, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Rows that stay and rows held out, both rising.

    ``groups`` (N,): rows of one group (one text) stay together. ``strata`` (N,): each stratum
    gives its share, rounded so that the shares add up to ``fraction`` of all rows, and always
    keeps at least one group, so a class with one row stays whole. A group larger than what is
    left of a share is passed over. Nothing depends on anything but the arguments.
    """
    _, first, group_of_row, size = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    stratum = np.unique(strata[first], return_inverse=True)[1]
    shuffled = np.random.default_rng(seed).permutation(len(first))
    order = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    rows_by_stratum = np.bincount(stratum, weights=size).astype(np.float64)
    groups_by_stratum = np.bincount(stratum)
    wanted = _shares(
        rows_by_stratum * fraction, round(len(groups) * fraction), can_give=groups_by_stratum > 1
    )
    ends = np.cumsum(groups_by_stratum)
    held_groups = np.zeros(len(first), dtype=bool)
    for end, start, target in zip(ends, [0, *ends[:-1]], wanted, strict=True):
        held_groups[_fitting(order[start:end], size, int(target))] = True
    held = held_groups[group_of_row]
    return np.flatnonzero(~held), np.flatnonzero(held)


def _fitting(members: Rows, size: Rows, target: int) -> Rows:
    """The first groups of ``members`` that fit into ``target`` rows, and never all of them."""
    total = np.cumsum(size[members])
    count = min(int(np.searchsorted(total, target, side="right")), len(members) - 1)
    left = target - (int(total[count - 1]) if count else 0)
    taken = [members[:count]]
    while left > 0 and sum(map(len, taken)) < len(members) - 1:
        fits = count + np.flatnonzero(size[members[count:]] <= left)
        if not len(fits):
            break
        taken.append(members[fits[:1]])
        left -= int(size[members[fits[0]]])
        count = int(fits[0]) + 1
    return np.concatenate(taken)


def _shares(exact: npt.NDArray[np.float64], total: int, *, can_give: npt.NDArray[np.bool_]) -> Rows:
    """Whole numbers near ``exact`` that add up to ``total``: largest remainders go up, those of
    strata that can give a row first."""
    shares = np.floor(exact).astype(np.int64)
    missing = max(0, total - int(shares.sum()))
    up = np.lexsort((-(exact - shares), ~can_give))[:missing]
    shares[up] += 1
    return shares


def joint(columns: list[Rows], rows: int) -> Rows:
    """One number for each combination of labels, int64 (N,); zeros when there are none."""
    combined = np.zeros(rows, dtype=np.int64)
    for column in columns:
        values, codes = np.unique(column, return_inverse=True)
        combined = np.unique(combined * len(values) + codes, return_inverse=True)[1]
    return combined.astype(np.int64)
