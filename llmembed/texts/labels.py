"""Labels as written -> tasks with their classes and arrays of indices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from llmembed.contract import Examples, Kind, Task
from llmembed.errors import DataError
from llmembed.texts.columns import Columns, listed

INTEGER = re.compile(r"-?\d+")


def encode(
    tables: Mapping[str, pa.Table], columns: Columns
) -> tuple[tuple[Task, ...], dict[str, Examples], dict[str, str]]:
    """Tasks, the examples of each split, and notes.

    A task's classes are those of all splits, so that a label which occurs only in the test split
    counts as a wrong answer and is not dropped. Raises ``DataError`` when the training rows show
    one class only.
    """
    tasks: list[Task] = []
    notes: dict[str, str] = {}
    for name, (column, kind) in columns.tasks.items():
        flat = {split: _flat(table[column]) for split, table in tables.items()}
        classes = ordered({str(label) for values in flat.values() for label in values}, kind)
        in_train = {str(label) for label in flat["train"]}
        if len(in_train) < (1 if kind == "multi" else 2):
            raise DataError(
                f"task {name!r} has {len(in_train)} class in the training rows"
                f" ({listed(in_train) or 'no labels'}); a classifier needs two or more"
            )
        unseen = [label for label in classes if label not in in_train]
        if unseen:
            verb = "is" if len(unseen) == 1 else "are"
            notes[f"unseen_{name}"] = (
                f"{len(unseen)} of {len(classes)} classes of {name} {verb} not in train: "
                f"{listed(unseen)}"
            )
        tasks.append(Task(name=name, classes=classes, kind=kind))
    splits = {split: _examples(table, tasks, columns) for split, table in tables.items()}
    return tuple(tasks), splits, notes


def ordered(labels: Iterable[str], kind: Kind = "single") -> tuple[str, ...]:
    """Whole numbers by value, tags by type with O first, all else by name."""
    names = sorted(labels)
    if kind == "tokens":
        names.sort(key=lambda tag: (tag != "O", tag[2:], tag[:1]))
    elif all(INTEGER.fullmatch(name) for name in names):
        names.sort(key=int)
    return tuple(names)


def _flat(column: pa.ChunkedArray) -> list[str]:
    """The distinct labels of a column."""
    if pa.types.is_list(column.type):
        column = pc.list_flatten(column)
    labels: list[str] = pc.unique(column).to_pylist()
    return labels


def _indices(values: pa.Array | pa.ChunkedArray, classes: tuple[str, ...]) -> npt.NDArray[np.int64]:
    found = pc.index_in(values, value_set=pa.array(classes, pa.string()))
    return np.asarray(found, dtype=np.int64)


def _examples(table: pa.Table, tasks: Iterable[Task], columns: Columns) -> Examples:
    labels: dict[str, npt.NDArray[np.generic]] = {}
    for task in tasks:
        column = table[columns.tasks[task.name][0]].combine_chunks()
        if task.kind == "single":
            labels[task.name] = _indices(column, task.classes)
            continue
        indices = _indices(pc.list_flatten(column), task.classes)
        if task.kind == "tokens":
            labels[task.name] = indices
            continue
        several = np.zeros((table.num_rows, len(task.classes)), dtype=bool)
        several[pc.list_parent_indices(column).to_numpy(zero_copy_only=False), indices] = True
        labels[task.name] = several
    words = None
    if columns.has_words:
        words = words_of(table, columns).to_pylist()
    return Examples(texts=texts_of(table, columns).to_pylist(), labels=labels, words=words)


def words_of(table: pa.Table, columns: Columns) -> pa.ChunkedArray:
    if columns.words is not None:
        return table[columns.words]
    return pc.utf8_split_whitespace(pc.utf8_trim_whitespace(table[columns.text]))


def texts_of(table: pa.Table, columns: Columns) -> pa.ChunkedArray:
    if columns.text is not None:
        return table[columns.text]
    return pc.binary_join(table[columns.words], " ")
