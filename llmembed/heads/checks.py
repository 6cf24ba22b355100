"""Do views, labels and tasks fit together?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from llmembed.contract import Task
from llmembed.errors import DataError, UnsupportedError


def check_views(
    views: Mapping[str, npt.NDArray[np.generic]],
    shapes: Mapping[str, tuple[int, int]],
    which: str,
) -> int:
    """Rows N of the views in ``shapes``; raises ``DataError`` when they do not fit."""
    counts = set()
    for name, shape in shapes.items():
        if name not in views:
            raise DataError(
                f"the {which} views lack {name!r}: got {', '.join(sorted(views)) or 'none'}"
            )
        if views[name].ndim != 3 or tuple(views[name].shape[1:]) != tuple(shape):
            raise DataError(
                f"the {which} view {name!r} has the shape {views[name].shape}: "
                f"expected (texts, {shape[0]}, {shape[1]})"
            )
        counts.add(len(views[name]))
    if len(counts) != 1:
        raise DataError(f"the {which} views have different numbers of rows: {sorted(counts)}")
    count = counts.pop()
    if count == 0:
        raise DataError(f"there are no {which} texts")
    return count


def check_labels(
    labels: Mapping[str, npt.NDArray[np.generic]], tasks: Sequence[Task], count: int, which: str
) -> None:
    """Raises ``DataError`` or, for a task of words, ``UnsupportedError``."""
    if not tasks:
        raise DataError("a head needs at least one task")
    for task in tasks:
        if task.kind == "tokens":
            raise UnsupportedError(
                f"the task {task.name!r} labels words: a head over text embeddings answers for "
                "whole texts only"
            )
        if task.name not in labels:
            raise DataError(f"the {which} labels lack the task {task.name!r}")
        values = labels[task.name]
        shape = (count, len(task.classes)) if task.kind == "multi" else (count,)
        if values.shape != shape:
            raise DataError(
                f"the {which} labels of {task.name!r} have the shape {values.shape}: "
                f"expected {shape}"
            )
        top = 1 if task.kind == "multi" else len(task.classes) - 1
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > top:
            raise DataError(
                f"the {which} labels of {task.name!r} reach from {low} to {high}: "
                f"expected 0 to {top}"
            )
