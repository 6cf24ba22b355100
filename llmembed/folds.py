"""Texts left out in turn: what a method that is cheap to fit is chosen by, instead of one part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from llmembed.contract import Classifier, Examples, Prediction, Reporter, Runtime, Task, Usage


def joined(first: Examples, second: Examples) -> Examples:
    """The texts of ``first`` and then those of ``second``, of the same tasks."""
    words = None
    if first.words is not None or second.words is not None:
        words = [*(first.words or ()), *(second.words or ())]
    labels = {n: np.concatenate([rows, second.labels[n]]) for n, rows in first.labels.items()}
    return Examples(texts=[*first.texts, *second.texts], labels=labels, words=words)


def index_of(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | slice:
    """``rows``, as a slice where they follow one another: what it takes is then no copy."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


@dataclass(frozen=True, kw_only=True)
class Folds:
    """N labelled texts to fit on, some of which are left out in turn. ``held``: the rows of each
    fold, int64, no row twice: with one fold a validation part, with several every row once.
    ``refit``: whether what the folds choose is then fitted on all N texts."""

    examples: Examples
    held: tuple[npt.NDArray[np.int64], ...]
    refit: bool = True

    @classmethod
    def of(cls, train: Examples, valid: Examples) -> Folds:
        """One fold: fitted on ``train``, judged on ``valid``, and no more."""
        held = np.arange(len(train), len(train) + len(valid))
        return cls(examples=joined(train, valid), held=(held,), refit=False)

    @property
    def left_out(self) -> Examples:
        """The texts at ``rows``."""
        return self.examples.select(self.rows)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Every row that is left out once, in order, int64 (H,)."""
        return np.sort(np.concatenate(self.held))

    def fitted(self, number: int) -> npt.NDArray[np.int64]:
        """The rows that the fit of this fold sees."""
        return np.setdiff1d(np.arange(len(self.examples)), self.held[number])


@dataclass(frozen=True, kw_only=True)
class CrossFitted:
    """``classifiers``: one for each seed, fitted on all texts, or with ``refit`` off on those of
    the only fold. ``left_out``: by task what fits that had not seen them answered to the H texts at
    ``Folds.rows``, in that order; it is of all seeds together. ``rows``: where it is of other texts
    than these, int64 (H,). ``shared``: of what each classifier's ``fit_usage`` holds, what was
    done once for all seeds: the embeddings and the folds."""

    classifiers: tuple[Classifier, ...]
    left_out: Mapping[str, Prediction]
    shared: Usage
    rows: npt.NDArray[np.int64] | None = None


@runtime_checkable
class CrossFits(Protocol):
    """A method that is cheap enough to be fitted by folds, or has a closed form for it."""

    def cross_fit(
        self,
        tasks: Sequence[Task],
        folds: Folds,
        runtime: Runtime,
        reporter: Reporter,
        *,
        seeds: Sequence[int] = (0,),
    ) -> CrossFitted:
        """Choose by the texts that are left out, then fit as ``folds.refit`` says, once for each of
        ``seeds``; the folds take the seeds in turn. A deterministic method passes over ``seeds``
        but for their number, 1. Raises as ``Method.fit``."""
        ...
