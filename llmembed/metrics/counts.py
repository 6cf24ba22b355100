"""Counts by class, and the figures that follow from them alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Counts:
    """By class, int64 (K,): how many answers are right, how many were given, how many are true.
    ``total``: texts of ``single``, whether or not their answers could be read."""

    right: Ints
    answered: Ints
    support: Ints
    total: int


COUNTED = ("micro_f1", "slot_f1", "macro_f1", "weighted_f1", "balanced_accuracy", "mcc")
"""What ``of_counts`` can tell."""


def of_counts(metric: str, found: Counts) -> float:
    """The figures that follow from counts by class alone. F1 averages run over the classes that
    occur in the truth or in the answers; an F1 of nothing is 0."""
    right, answered, support = found.right, found.answered, found.support
    if metric in ("micro_f1", "slot_f1"):
        return ratio(2 * int(right.sum()), int(answered.sum() + support.sum()))
    if metric == "balanced_accuracy":
        occurs = support > 0
        return float((right[occurs] / support[occurs]).mean()) if occurs.any() else 0.0
    if metric == "mcc":
        return _mcc(found)
    both = answered + support
    f1 = 2 * right / np.maximum(both, 1)
    if metric == "macro_f1":
        return float(f1[both > 0].mean()) if (both > 0).any() else 0.0
    assert metric == "weighted_f1", metric
    return float(f1 @ support / support.sum()) if support.sum() else 0.0


def _mcc(found: Counts) -> float:
    """Matthews' correlation of C classes (Gorodkin 2004). Answers that could not be read are as
    those of one class more."""
    n = float(found.total)
    said, true = found.answered.astype(np.float64), found.support.astype(np.float64)
    unread = n - said.sum()
    along = n * found.right.sum() - said @ true
    answers, truths = n * n - said @ said - unread * unread, n * n - true @ true
    return float(along / np.sqrt(answers * truths)) if answers * truths > 0 else 0.0


def ratio(part: int, whole: int) -> float:
    """``part / whole``, 0 of nothing."""
    return part / whole if whole else 0.0
