"""Scores of one task: the metrics the papers report, against truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from llmembed.contract import Kind, Prediction, Task
from llmembed.errors import UnsupportedError
from llmembed.evaluation.confidence import Reliability, confidence_and_correct, reliability
from llmembed.evaluation.confusion import WHOLE_UP_TO, Confusion
from llmembed.evaluation.slots import slot_counts

PRIMARY: dict[Kind, str] = {"single": "accuracy", "multi": "micro_f1", "tokens": "slot_f1"}
"""The one metric a task of each kind is ranked by."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class (for ``tokens`` one entity type); ``support`` is its number in the truth."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How well one task was answered on ``examples`` texts.

    ``metrics``: accuracy, macro_f1, weighted_f1 for ``single``; subset_accuracy, micro_f1,
    macro_f1, weighted_f1 for ``multi``; word_accuracy, slot_precision, slot_recall, slot_f1,
    macro_f1, weighted_f1 for ``tokens``; ``ece`` where there are scores; those of ``open_sets``
    where a class of texts that fit no class is declared. ``confusion``: for
    ``single`` the counts (C, C), rows truth, columns answer; unreadable answers are in no column;
    None of more than ``WHOLE_UP_TO`` classes. ``pairs``: the same counts of however many classes,
    those that are not 0; kept while the scores are in memory, not in their JSON.
    ``collapsed``: the class that is answered to every text although the truth has several.
    ``unanswered``: texts to which no answer ever came; they count as wrong, too.
    """

    task: str
    kind: Kind
    examples: int
    primary: str
    metrics: Mapping[str, float]
    invalid_rate: float
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...] | None = None
    reliability: Reliability | None = None
    collapsed: str | None = None
    unanswered: int = 0
    pairs: Confusion | None = field(default=None, compare=False, repr=False)

    @property
    def unreadable(self) -> tuple[int, int]:
        """How many of how many answers that came could not be read."""
        return round(self.invalid_rate * self.examples) - self.unanswered, (
            self.examples - self.unanswered
        )

    @property
    def value(self) -> float:
        """The primary metric."""
        return self.metrics[self.primary]

    @property
    def counted(self) -> Confusion | None:
        """``pairs``, or of scores read from JSON those of ``confusion``."""
        if self.pairs is not None or self.confusion is None:
            return self.pairs
        return Confusion.of_matrix(self.confusion)

    def to_json(self) -> dict[str, Any]:
        told = asdict(replace(self, pairs=None))
        del told["pairs"]
        return told

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Scores:
        confusion, bins = data["confusion"], data["reliability"]
        return cls(
            **{
                **data,
                "per_class": tuple(ClassScore(**row) for row in data["per_class"]),
                "confusion": confusion and tuple(tuple(row) for row in confusion),
                "reliability": bins and Reliability.from_json(bins),
            }
        )


def score(task: Task, truth: npt.NDArray[Any], prediction: Prediction) -> Scores:
    """Compare ``prediction`` with ``truth`` (as in ``Examples.labels``).

    An answer that could not be read is wrong, and counted in ``invalid_rate``. F1 averages run
    over the classes that occur in the truth or in the answers; an F1 of nothing is 0.

    Raises:
        UnsupportedError: truth and prediction are not of the same texts or words.
    """
    if len(truth) != len(prediction.labels):
        unit = "words" if task.kind == "tokens" else "texts"
        raise UnsupportedError(
            f"task {task.name!r} has {len(truth)} labelled {unit} but {len(prediction.labels)} "
            f"were answered; texts of word labels must be their words joined by single spaces"
        )
    measure = {"single": _single, "multi": _multi, "tokens": _tokens}[task.kind]
    metrics, per_class, pairs = measure(task, truth, prediction)
    confidence, correct = confidence_and_correct(task, truth, prediction)
    bins = None if confidence is None else reliability(confidence, correct)
    if bins is not None:
        metrics["ece"] = bins.ece
    return Scores(
        task=task.name,
        kind=task.kind,
        examples=len(prediction.invalid),
        primary=PRIMARY[task.kind],
        metrics=metrics,
        invalid_rate=float(np.mean(prediction.invalid)) if len(prediction.invalid) else 0.0,
        per_class=per_class,
        confusion=_whole(pairs),
        pairs=pairs,
        reliability=bins,
        collapsed=collapsed_class(task, truth, prediction),
        unanswered=0 if prediction.unanswered is None else int(prediction.unanswered.sum()),
    )


def _whole(pairs: Confusion | None) -> tuple[tuple[int, ...], ...] | None:
    if pairs is None or pairs.classes > WHOLE_UP_TO:
        return None
    return tuple(tuple(row) for row in pairs.matrix().tolist())


def collapsed_class(task: Task, truth: npt.NDArray[Any], prediction: Prediction) -> str | None:
    """The class a collapsed fit answers to everything, None for a sound one.

    Only where the truth has several classes: answering ``earn`` to a hundred ``earn`` is right.
    For ``multi`` it is a row of labels, joined by ``+`` (``nothing`` where it is empty).
    """
    labels = prediction.labels[prediction.labels >= 0] if task.kind != "multi" else None
    if labels is not None:
        if len(labels) == 0 or len(np.unique(truth)) < 2 or len(np.unique(labels)) > 1:
            return None
        return task.classes[int(labels[0])]
    rows = np.asarray(prediction.labels, dtype=bool)
    if len(rows) == 0 or (rows != rows[0]).any() or (truth == truth[0]).all():
        return None
    return "+".join(task.classes[i] for i in np.flatnonzero(rows[0])) or "nothing"


Measured = tuple[dict[str, float], tuple[ClassScore, ...], Confusion | None]


def _single(task: Task, truth: npt.NDArray[Any], prediction: Prediction) -> Measured:
    confusion = Confusion.of(truth, readable(prediction), len(task.classes))
    support = np.bincount(truth, minlength=len(task.classes))
    right = confusion.right
    per_class, averages = _per_class(task.classes, right, confusion.answered, support)
    accuracy = ratio(int(right.sum()), len(truth))
    return {"accuracy": accuracy, **averages}, per_class, confusion


def _multi(task: Task, truth: npt.NDArray[Any], prediction: Prediction) -> Measured:
    answers = np.asarray(prediction.labels, dtype=bool) & ~prediction.invalid[:, None]
    truth = np.asarray(truth, dtype=bool)
    right, answered, support = (answers & truth).sum(0), answers.sum(0), truth.sum(0)
    per_class, averages = _per_class(task.classes, right, answered, support)
    exact = (answers == truth).all(axis=1) & ~prediction.invalid
    metrics = {
        "subset_accuracy": ratio(int(exact.sum()), len(truth)),
        "micro_f1": ratio(2 * int(right.sum()), int(answered.sum() + support.sum())),
        **averages,
    }
    return metrics, per_class, None


def _tokens(task: Task, truth: npt.NDArray[Any], prediction: Prediction) -> Measured:
    assert prediction.offsets is not None, "a prediction of word labels has offsets"
    counts = slot_counts(task.classes, truth, prediction.labels, prediction.offsets)
    names = sorted({*counts.right, *counts.answered, *counts.support})
    right, answered, support = (
        np.array([part[name] for name in names], dtype=np.int64)
        for part in (counts.right, counts.answered, counts.support)
    )
    per_class, averages = _per_class(names, right, answered, support)
    n_right, n_answered, n_truth = int(right.sum()), int(answered.sum()), int(support.sum())
    metrics = {
        "word_accuracy": ratio(int((prediction.labels == truth).sum()), len(truth)),
        "slot_precision": ratio(n_right, n_answered),
        "slot_recall": ratio(n_right, n_truth),
        "slot_f1": ratio(2 * n_right, n_answered + n_truth),
        **averages,
    }
    return metrics, per_class, None


def _per_class(
    names: Sequence[str],
    right: npt.NDArray[Any],
    answered: npt.NDArray[Any],
    support: npt.NDArray[Any],
) -> tuple[tuple[ClassScore, ...], dict[str, float]]:
    """One row for each class, and the macro and support-weighted means of F1."""
    rows = tuple(
        ClassScore(
            name=name,
            precision=ratio(int(hit), int(said)),
            recall=ratio(int(hit), int(true)),
            f1=ratio(2 * int(hit), int(said + true)),
            support=int(true),
        )
        for name, hit, said, true in zip(names, right, answered, support, strict=True)
    )
    f1 = np.array([row.f1 for row in rows])
    occurs = (answered + support) > 0
    return rows, {
        "macro_f1": float(f1[occurs].mean()) if occurs.any() else 0.0,
        "weighted_f1": float(f1 @ support / support.sum()) if support.sum() else 0.0,
    }


def readable(prediction: Prediction) -> npt.NDArray[np.int64]:
    """``single`` answers, int64 (N,), -1 where unreadable by label or by mask."""
    return np.where(prediction.invalid, -1, prediction.labels).astype(np.int64)


def ratio(part: int, whole: int) -> float:
    """``part / whole``, 0 of nothing."""
    return part / whole if whole else 0.0
