"""What methods that score whole texts share: which tasks they do, and labels from scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmembed.contract import Prediction, Task
from llmembed.errors import UnsupportedError


def check_kinds(method: str, tasks: Sequence[Task]) -> None:
    """Raise ``UnsupportedError`` for a task of kind ``tokens``."""
    for task in tasks:
        if task.kind == "tokens":
            raise UnsupportedError(
                f"method {method!r} gives one answer per text, so it can't do task {task.name!r} "
                "of kind 'tokens' (one answer per word); leave it out with data.tasks=[…]"
            )


def decide(scores: np.ndarray, kind: str) -> Prediction:
    """Labels from probabilities (N, C): the largest, or every one of at least 1/2."""
    labels = scores >= 0.5 if kind == "multi" else scores.argmax(axis=1).astype(np.int64)
    return Prediction(labels=labels, scores=scores, invalid=np.zeros(len(scores), dtype=bool))
