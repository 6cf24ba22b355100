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
from llmembed.metrics import PRIMARY as PRIMARY
from llmembed.metrics import metric_of, value_of
from llmembed.metrics.counts import Counts, ratio
from llmembed.metrics.deciding import can_collapse
from llmembed.metrics.measuring import counts, figures, readable
from llmembed.metrics.slots import slot_counts


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

    ``metrics``: the figures of ``llmembed.metrics`` that fit the kind, as shown (a log loss is
    positive), and for ``tokens`` slot_precision and slot_recall; ``ece`` where there are scores;
    those of ``open_sets`` where a class of texts that fit no class is declared. ``primary``: the
    one by which the task is judged. ``confusion``: for
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
        """What choices go by: the primary metric, of a loss its negative; higher is better."""
        return value_of(self.primary, self.metrics[self.primary])

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
        UnsupportedError: truth and prediction are not of the same texts or words, or the task is
            judged by scores and there are none.
    """
    if len(truth) != len(prediction.labels):
        unit = "words" if task.kind == "tokens" else "texts"
        raise UnsupportedError(
            f"task {task.name!r} has {len(truth)} labelled {unit} but {len(prediction.labels)} "
            f"were answered; texts of word labels must be their words joined by single spaces"
        )
    found, names, pairs = _counted(task, truth, prediction)
    metrics = figures(task, truth, prediction, found)
    if task.kind == "tokens":
        right, said, true = (int(n.sum()) for n in (found.right, found.answered, found.support))
        metrics |= {"slot_precision": ratio(right, said), "slot_recall": ratio(right, true)}
    primary = metric_of(task)
    confidence, correct = confidence_and_correct(task, truth, prediction)
    bins = None if confidence is None else reliability(confidence, correct)
    if bins is not None:
        metrics["ece"] = bins.ece
    return Scores(
        task=task.name,
        kind=task.kind,
        examples=len(prediction.invalid),
        primary=primary,
        metrics=metrics,
        invalid_rate=float(np.mean(prediction.invalid)) if len(prediction.invalid) else 0.0,
        per_class=_per_class(names, found),
        confusion=_whole(pairs),
        pairs=pairs,
        reliability=bins,
        collapsed=collapsed_class(task, truth, prediction) if can_collapse(task) else None,
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


def _counted(
    task: Task, truth: npt.NDArray[Any], prediction: Prediction
) -> tuple[Counts, Sequence[str], Confusion | None]:
    """Counts, what they are of, and for ``single`` which class was answered for which."""
    if task.kind == "single":
        pairs = Confusion.of(truth, readable(prediction), len(task.classes))
        support = np.bincount(truth, minlength=len(task.classes))
        counted = Counts(
            right=pairs.right, answered=pairs.answered, support=support, total=len(truth)
        )
        return counted, task.classes, pairs
    if task.kind == "multi":
        return counts(task, truth, prediction), task.classes, None
    assert prediction.offsets is not None, "a prediction of word labels has offsets"
    slots = slot_counts(task.classes, truth, prediction.labels, prediction.offsets)
    return slots.counts(len(truth)), slots.names, None


def _per_class(names: Sequence[str], found: Counts) -> tuple[ClassScore, ...]:
    """One row for each class."""
    return tuple(
        ClassScore(
            name=name,
            precision=ratio(int(hit), int(said)),
            recall=ratio(int(hit), int(true)),
            f1=ratio(2 * int(hit), int(said + true)),
            support=int(true),
        )
        for name, hit, said, true in zip(
            names, found.right, found.answered, found.support, strict=True
        )
    )
