"""How far a score can be believed: confidence, and the reliability of its bins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llmembed.contract import Prediction, Task

BINS = 15


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Answers in equal-width bins of confidence, empty bins included.

    ``ece``, the expected calibration error, is the mean gap between a bin's confidence and its
    share of right answers, weighted by ``counts`` (Guo et al. 2017, 15 bins).
    """

    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    counts: tuple[int, ...]
    ece: float

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Reliability:
        columns = {key: tuple(data[key]) for key in ("confidence", "accuracy", "counts")}
        return cls(ece=data["ece"], **columns)


def confidence_and_correct(
    task: Task, truth: npt.NDArray[Any], prediction: Prediction
) -> tuple[npt.NDArray[np.float64] | None, npt.NDArray[np.bool_]]:
    """Confidence in each readable answer, None without scores, and whether it is right.

    ``single``: the score of the class answered, one for each text. ``tokens``: the same for each
    word. ``multi``: one for each text and class, p of a class that is answered, else 1 - p.
    """
    labels = prediction.labels
    if task.kind == "multi":
        keep = ~prediction.invalid
        said = np.asarray(labels, dtype=bool)[keep]
        correct = (said == truth[keep]).ravel()
        if prediction.scores is None:
            return None, correct
        scores = prediction.scores[keep].astype(np.float64)
        return np.where(said, scores, 1.0 - scores).ravel(), correct
    keep = labels >= 0
    if task.kind == "single":
        keep = keep & ~prediction.invalid
    correct = (labels == truth)[keep]
    if prediction.scores is None:
        return None, correct
    rows = np.flatnonzero(keep)
    return prediction.scores[rows, labels[rows]].astype(np.float64), correct


def reliability(
    confidence: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_], *, bins: int = BINS
) -> Reliability:
    """Bins are open below and closed above: ((b - 1) / bins, b / bins]."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    shared = np.maximum(counts, 1)
    mean = np.bincount(which, weights=confidence, minlength=bins) / shared
    right = np.bincount(which, weights=correct.astype(np.float64), minlength=bins) / shared
    ece = float((counts * np.abs(mean - right)).sum() / max(len(confidence), 1))
    return Reliability(
        confidence=tuple(float(value) for value in mean),
        accuracy=tuple(float(value) for value in right),
        counts=tuple(int(value) for value in counts),
        ece=ece,
    )
