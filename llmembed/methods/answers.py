"""What methods that score whole texts share: which tasks they do, and labels from scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from llmembed.contract import Examples, Prediction, Task
from llmembed.errors import UnsupportedError
from llmembed.metrics import deciding
from llmembed.metrics.deciding import answered


def check_kinds(method: str, tasks: Sequence[Task]) -> None:
    """Raise ``UnsupportedError`` for a task of kind ``tokens``."""
    for task in tasks:
        if task.kind == "tokens":
            raise UnsupportedError(
                f"method {method!r} gives one answer per text, so it can't do task {task.name!r} "
                "of kind 'tokens' (one answer per word); leave it out with data.tasks=[…]"
            )


def decide(scores: np.ndarray, task: Task) -> Prediction:
    """Labels from probabilities (N, C), as the task says (see ``metrics.deciding.decided``): the
    largest, the least expected cost, or every one that reaches its threshold."""
    return answered(task, scores)


def with_thresholds(
    tasks: Sequence[Task],
    valid: Examples,
    scores: Callable[[Task], np.ndarray],
) -> tuple[Task, ...]:
    """``tasks``, those of several labels that are judged by an F1 with the thresholds that
    validation says (see ``metrics.deciding.with_thresholds``); ``scores`` is asked for these alone.
    A classifier keeps the tasks so chosen, and decides by them ever after."""
    return tuple(
        deciding.with_thresholds(task, valid.labels[task.name], scores(task))
        if deciding.thresholds(task)
        else task
        for task in tasks
    )
