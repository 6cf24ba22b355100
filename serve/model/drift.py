"""Whether the texts of today are answered as those of validation were.

The figure is the population stability index, sum of (p - q) ln(p / q) over classes or bins of
confidence, of the last n answers against the m of validation, less the index that chance alone
gives: of samples of one distribution over K classes it is about (K - 1)(1/n + 1/m) (Yurdakul and
Naranjo, "Statistical properties of the population stability index", 2020), which with many classes
is far above the bounds below. Shares are of counts with half an answer added to each class, so
that a class seen on one side alone has a logarithm. What is left is never below 0. By common
practice below 0.1 is calm, above 0.25 a shift.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmembed.contract import Prediction, Task
from llmembed.evaluation.confidence import BINS, confidence_and_correct

WINDOW = 1000
"""Answers that are compared, the last ones."""

LEAST = 100
LEAST_PER_CLASS = 5
"""Fewer answers than either (but never more than ``WINDOW``) say nothing about a distribution."""

_ADDED = 0.5
"""Answers added to each class on both sides."""


class Drift:
    """The last answers of one seat. ``reference``: task -> what ``pipelines.keeping`` wrote."""

    def __init__(self, tasks: Sequence[Task], reference: Mapping[str, Any]) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._reference = reference
        self._labels: dict[str, deque[str]] = {t: deque(maxlen=WINDOW) for t in self._tasks}
        self._bins: dict[str, deque[int]] = {t: deque(maxlen=WINDOW) for t in self._tasks}

    def saw(self, predictions: Mapping[str, Prediction]) -> None:
        """Take the answers to one request."""
        for name, prediction in predictions.items():
            task = self._tasks[name]
            if task.kind == "single":
                labels = prediction.labels.tolist()
                self._labels[name].extend(task.classes[i] for i in labels if i >= 0)
            confidence, _ = confidence_and_correct(task, prediction.labels, prediction)
            if confidence is not None:
                bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
                self._bins[name].extend(bins.tolist())

    def indices(self) -> dict[tuple[str, str], float]:
        """(task, ``labels`` or ``confidence``) -> the index, where both sides are known."""
        found = {}
        for task, reference in self._reference.items():
            texts = reference["texts"]
            sides: dict[str, tuple[Counter[Any], Mapping[Any, float]]] = {}
            if "labels" in reference:
                sides["labels"] = Counter(self._labels.get(task, ())), reference["labels"]
            if "confidence" in reference:
                bins = dict(enumerate(reference["confidence"]))
                sides["confidence"] = Counter(self._bins.get(task, ())), bins
            for of, (seen, shares) in sides.items():
                index = index_of(seen, {key: share * texts for key, share in shares.items()})
                if index is not None:
                    found[task, of] = index
        return found


def index_of(seen: Mapping[Any, float], reference: Mapping[Any, float]) -> float | None:
    """The index of two sides' answers by class, or None where too few were seen to tell."""
    classes = [key for key in {**seen, **reference} if seen.get(key) or reference.get(key)]
    n, m = sum(seen.values()), sum(reference.values())
    if n < max(LEAST, min(WINDOW, LEAST_PER_CLASS * len(classes))) or not m:
        return None
    index = 0.0
    for key in classes:
        now = (seen.get(key, 0) + _ADDED) / (n + _ADDED * len(classes))
        then = (reference.get(key, 0) + _ADDED) / (m + _ADDED * len(classes))
        index += (now - then) * math.log(now / then)
    return max(0.0, index - (len(classes) - 1) * (1 / n + 1 / m))
