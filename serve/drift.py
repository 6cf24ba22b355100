"""Whether the texts of today are answered as those of validation were.

The population stability index, sum of (p - q) ln(p / q) over classes or bins of confidence, of the
last answers against validation's. By common practice below 0.1 is calm, above 0.25 a shift.
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
"""Fewer answers say nothing about a distribution."""

_NEVER = 1e-4
"""Stands for a share of zero, whose logarithm there is none of."""


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
            labels, bins = self._labels.get(task, ()), self._bins.get(task, ())
            if len(labels) >= LEAST and "labels" in reference:
                found[task, "labels"] = _index(Counter(labels), reference["labels"])
            if len(bins) >= LEAST and "confidence" in reference:
                known = dict(enumerate(reference["confidence"]))
                found[task, "confidence"] = _index(Counter(bins), known)
        return found


def _index(seen: Mapping[Any, int], reference: Mapping[Any, float]) -> float:
    total = sum(seen.values())
    index = 0.0
    for key in {*seen, *reference}:
        now = max(seen.get(key, 0) / total, _NEVER)
        then = max(reference.get(key, 0.0), _NEVER)
        index += (now - then) * math.log(now / then)
    return index
