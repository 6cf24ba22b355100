"""Two classifiers on the same texts: whether one is really better."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llmembed.contract import Prediction, Task

PAIRED = {"accuracy", "subset_accuracy"}
"""Metrics that McNemar's test speaks of: shares of texts that are answered right."""
DISTINCT = 0.05
"""The chance above which a difference is not taken for one."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """Texts left out of a fit, by their rows int64 (H,), and whether each was answered right by
    it in every task, bool (H,)."""

    rows: npt.NDArray[np.int64]
    right: npt.NDArray[np.bool_]

    def to_json(self) -> dict[str, Any]:
        """A bit for each row up to the last: whether it was left out, and whether it was right."""
        count = int(self.rows.max()) + 1 if len(self.rows) else 0
        bits = np.zeros((2, count), dtype=np.bool_)
        bits[0, self.rows], bits[1, self.rows] = True, self.right
        words = [base64.b64encode(np.packbits(each).tobytes()).decode() for each in bits]
        return {"count": count, "left_out": words[0], "right": words[1]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Told:
        count = int(data["count"])

        def bits(name: str) -> npt.NDArray[np.bool_]:
            packed = np.frombuffer(base64.b64decode(data[name]), dtype=np.uint8)
            return np.unpackbits(packed, count=count).astype(np.bool_)

        rows = np.flatnonzero(bits("left_out"))
        return cls(rows=rows, right=bits("right")[rows])


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The winner against ``label`` on ``texts`` that both were asked about without having seen
    them: ``only_winner`` and ``only_other`` of these were answered right by one of the two alone.
    ``p``: of McNemar's exact test, the chance of a difference like this between equals.
    ``energy_ratio``: the winner's energy over the other's."""

    label: str
    texts: int
    only_winner: int
    only_other: int
    p: float
    energy_ratio: float | None = None

    @property
    def distinct(self) -> bool:
        return self.p < DISTINCT


def compare_paired(
    label: str, winner: Told, other: Told, *, energy_ratio: float | None = None
) -> Comparison | None:
    """None where they were never asked about the same texts."""
    _, ours, theirs = np.intersect1d(winner.rows, other.rows, return_indices=True)
    if not len(ours):
        return None
    a, b = winner.right[ours], other.right[theirs]
    only_winner, only_other = int((a & ~b).sum()), int((b & ~a).sum())
    return Comparison(
        label=label,
        texts=len(ours),
        only_winner=only_winner,
        only_other=only_other,
        p=mcnemar(only_winner, only_other),
        energy_ratio=energy_ratio,
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided test: of the texts that one alone answers right, each is either's with
    the same chance."""
    from scipy.stats import binomtest

    count = only_a + only_b
    return float(binomtest(only_a, count).pvalue) if count else 1.0


def all_right(
    tasks: Sequence[Task],
    labels: Mapping[str, npt.NDArray[Any]],
    predictions: Mapping[str, Prediction],
) -> npt.NDArray[np.bool_]:
    """Whether each text is answered right in every task: its class, its whole set of labels, every
    one of its words; bool (N,)."""
    found = np.ones(len(predictions[tasks[0].name].invalid), dtype=np.bool_)
    for task in tasks:
        answer, truth = predictions[task.name], labels[task.name]
        same: npt.NDArray[Any] = np.asarray(answer.labels == truth)
        if task.kind == "multi":
            same = np.asarray(same.all(axis=1))
        elif task.kind == "tokens":
            assert answer.offsets is not None, "a prediction of word labels has offsets"
            wrong = np.concatenate([[0], np.cumsum(~same)])
            same = wrong[answer.offsets[1:]] == wrong[answer.offsets[:-1]]
        found &= same & ~answer.invalid
    return found
