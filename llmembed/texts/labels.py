"""Labels as written -> tasks with their classes and arrays of indices."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from llmembed.contract import UNKNOWN, Examples, Kind, Task
from llmembed.errors import DataError
from llmembed.texts.benchmarks.benchmark import ROWS
from llmembed.texts.columns import Columns, listed
from llmembed.texts.facts import refuse_as_numbers, uncut_note
from llmembed.texts.spelling import (
    alike_note,
    known_alike,
    merged_note,
    one_spelling,
    quoted_note,
)

INTEGER = re.compile(r"-?[0-9]+")
_COMPLEMENTS = str.maketrans("0123456789", "9876543210")


def encode(
    tables: Mapping[str, pa.Table], columns: Columns
) -> tuple[tuple[Task, ...], dict[str, Examples], dict[str, str]]:
    """Tasks, the examples of each split, and notes.

    A task's classes are those of all splits, so that a label which occurs only in the test split
    counts as a wrong answer and is not dropped. Raises ``DataError`` when the training rows show
    one class only, nearly every row a class of its own, or a split no label of the training rows.
    """
    tasks: list[Task] = []
    notes: dict[str, str] = {}
    spelled: dict[str, dict[str, str]] = {}
    for name, (column, kind) in columns.tasks.items():
        written = {split: _flat(table[column]) for split, table in tables.items()}
        found = one_spelling({label for values in written.values() for label in values})
        spelled[name] = found
        flat = {split: {found[label] for label in values} for split, values in written.items()}
        classes = ordered({label for values in flat.values() for label in values}, kind)
        in_train = flat["train"]
        if len(in_train) < (1 if kind == "multi" else 2):
            raise DataError(
                f"task {name!r} has {len(in_train)} class in the training rows"
                f" ({listed(in_train) or 'no labels'}); a classifier needs two or more"
            )
        if kind == "single":
            refuse_as_numbers(column, classes, sum(table.num_rows for table in tables.values()))
        _refuse_strangers(name, flat)
        said = {
            "merged": merged_note(name, found),
            "unseen": _unseen(name, classes, in_train),
            "alike": alike_note(name, classes),
            "quoted": quoted_note(name, classes),
            "abstained": _like_an_abstention(name, classes) if kind == "single" else None,
        }
        notes |= {f"{key}_{name}": words for key, words in said.items() if words is not None}
        tasks.append(Task(name=name, classes=classes, kind=kind))
    splits = {split: _examples(table, tasks, columns, spelled) for split, table in tables.items()}
    for task in tasks:
        if task.kind == "multi":
            whole = uncut_note(task, splits.values(), columns.separator)
            notes |= {f"separator_{task.name}": whole} if whole else {}
    return tuple(tasks), splits, notes


def _unseen(task: str, classes: Sequence[str], in_train: Collection[str]) -> str | None:
    unseen = [label for label in classes if label not in in_train]
    if not unseen:
        return None
    verb = "is" if len(unseen) == 1 else "are"
    return (
        f"{len(unseen)} of {len(classes)} classes of {task} {verb} not in train: {listed(unseen)}"
        + known_alike(unseen, in_train)
    )


def _refuse_strangers(task: str, flat: Mapping[str, Collection[str]]) -> None:
    """Rows of which no label can ever be answered are no test."""
    for split, labels in flat.items():
        if labels and not set(labels) & set(flat["train"]):
            raise DataError(
                f"no label of {task} in the {ROWS[split]} rows ({listed(sorted(labels), 8)}) is "
                f"among those of the training rows ({listed(sorted(flat['train']), 8)})"
                + known_alike(sorted(labels), flat["train"])
            )


def _like_an_abstention(task: str, classes: Collection[str]) -> str | None:
    same = [name for name in classes if name.lower() == UNKNOWN]
    if not same:
        return None
    return (
        f"a class of {task} is called {same[0]!r}, as is an answer that abstains: "
        f"`predict --unknown-below` tells them apart in its column `abstained`"
    )


def ordered(labels: Iterable[str], kind: Kind = "single") -> tuple[str, ...]:
    """Whole numbers by value, tags by type with O first, all else by name."""
    names = sorted(labels)
    if kind == "tokens":
        names.sort(key=lambda tag: (tag != "O", tag[2:], tag[:1]))
    elif all(INTEGER.fullmatch(name) for name in names):
        names.sort(key=_by_value)
    return tuple(names)


def _by_value(name: str) -> tuple[int, int, str]:
    """Sorts whole numbers of any length as ``int`` would, which takes 4,300 digits at most."""
    digits = name.lstrip("-").lstrip("0")
    if digits and name.startswith("-"):
        return (-1, -len(digits), digits.translate(_COMPLEMENTS))
    return (bool(digits), len(digits), digits)


def _flat(column: pa.ChunkedArray) -> list[str]:
    """The distinct labels of a column."""
    if pa.types.is_list(column.type):
        column = pc.list_flatten(column)
    labels: list[str] = pc.unique(column).to_pylist()
    return labels


def _indices(
    values: pa.Array | pa.ChunkedArray, classes: tuple[str, ...], spelled: Mapping[str, str]
) -> npt.NDArray[np.int64]:
    found = pc.index_in(values, value_set=pa.array(list(spelled), pa.string()))
    place = {name: index for index, name in enumerate(classes)}
    return np.array([place[name] for name in spelled.values()], dtype=np.int64)[
        np.asarray(found, dtype=np.int64)
    ]


def _examples(
    table: pa.Table,
    tasks: Iterable[Task],
    columns: Columns,
    spelled: Mapping[str, Mapping[str, str]],
) -> Examples:
    labels: dict[str, npt.NDArray[np.generic]] = {}
    for task in tasks:
        column = table[columns.tasks[task.name][0]].combine_chunks()
        if task.kind == "single":
            labels[task.name] = _indices(column, task.classes, spelled[task.name])
            continue
        indices = _indices(pc.list_flatten(column), task.classes, spelled[task.name])
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
