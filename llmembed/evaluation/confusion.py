"""Which class was answered for which: the pairs that occur, however many classes there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

WHOLE_UP_TO = 100
"""Of more classes the matrix is neither drawn nor written out whole: it grows with their square."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Confusion:
    """``count`` texts of class ``truth`` were answered ``answer``, int64 (P,) each, P the pairs
    that occur, at most one a text; of ``classes`` classes. Unreadable answers are in no pair."""

    truth: Ints
    answer: Ints
    count: Ints
    classes: int

    @classmethod
    def of(cls, truth: npt.NDArray[Any], answers: Ints, classes: int) -> Confusion:
        """Of texts (N,); an answer of -1 is left out."""
        read = answers >= 0
        found, count = np.unique(
            np.asarray(truth, dtype=np.int64)[read] * classes + answers[read], return_counts=True
        )
        return cls(truth=found // classes, answer=found % classes, count=count, classes=classes)

    @classmethod
    def of_matrix(cls, matrix: Sequence[Sequence[int]]) -> Confusion:
        whole = np.array(matrix, dtype=np.int64)
        truth, answer = np.nonzero(whole)
        return cls(truth=truth, answer=answer, count=whole[truth, answer], classes=len(whole))

    @property
    def right(self) -> Ints:
        """By class, (C,)."""
        return self._by_class(self.truth == self.answer)

    @property
    def answered(self) -> Ints:
        """How often each class was answered, (C,)."""
        return self._by_class(np.ones(len(self.count), dtype=bool))

    def _by_class(self, kept: npt.NDArray[np.bool_]) -> Ints:
        weights = self.count[kept]
        found = np.bincount(self.answer[kept], weights=weights, minlength=self.classes)
        return np.asarray(found.round(), dtype=np.int64)

    def matrix(self, chosen: Ints | None = None) -> Ints:
        """The counts (K, K) between ``chosen`` classes (K,), all of them by default; rows truth,
        columns answer."""
        chosen = np.arange(self.classes) if chosen is None else chosen
        place = np.full(self.classes, -1)
        place[chosen] = np.arange(len(chosen))
        rows, columns = place[self.truth], place[self.answer]
        inside = (rows >= 0) & (columns >= 0)
        found = np.zeros((len(chosen), len(chosen)), dtype=np.int64)
        found[rows[inside], columns[inside]] = self.count[inside]
        return found

    def most_confused(self, number: int) -> Ints:
        """The ``number`` classes of the pairs that were confused most often, such pairs side by
        side; filled up by the classes of most answers where fewer were confused."""
        wrong = np.flatnonzero(self.truth != self.answer)
        order = wrong[np.argsort(-self.count[wrong], kind="stable")]
        found: dict[int, None] = {}
        for pair in order:
            found |= dict.fromkeys((int(self.truth[pair]), int(self.answer[pair])))
            if len(found) >= number:
                break
        rest = np.argsort(-self.answered, kind="stable")
        found |= dict.fromkeys(rest[:number].tolist())
        return np.array(list(found)[:number], dtype=np.int64)

    def write(self, path: Path, names: Sequence[str]) -> Path:
        """As compressed npz, without pickle: what ``scipy.sparse.load_npz`` reads as the matrix
        (C, C), and ``names``, the classes in its order."""
        np.savez_compressed(
            path,
            row=self.truth.astype(np.int32),
            col=self.answer.astype(np.int32),
            data=self.count,
            shape=np.array([self.classes, self.classes]),
            format=np.array(b"coo"),
            names=np.array(names, dtype=np.str_),
        )
        return path
