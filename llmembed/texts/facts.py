"""What must be said beside a corpus's figures, and the rows held out by label and text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from llmembed.contract import Examples, Task
from llmembed.errors import DataError
from llmembed.texts.split import hold_out, joint

NUMBER = re.compile(r"[-+]?[0-9]*[.,]?[0-9]+([eE][-+]?[0-9]+)?")
FEW_ROWS = 20
OTHER_SEPARATORS = ("|", ";", ",", "#", "\n", "\t", "/")


def text_numbers(texts: Mapping[str, pa.ChunkedArray]) -> dict[str, npt.NDArray[np.int64]]:
    """For each split int64 (N,): equal texts, in whichever split, have equal numbers from 0."""
    chunks = [chunk.cast(pa.large_string()) for part in texts.values() for chunk in part.chunks]
    encoded = pa.concat_arrays(chunks).dictionary_encode()
    numbers = np.asarray(encoded.indices, dtype=np.int64)
    cuts = np.cumsum([len(part) for part in texts.values()])[:-1]
    return dict(zip(texts, np.split(numbers, cuts), strict=True))


def strata_of(
    examples: Examples, tasks: Sequence[Task], *, fraction: float
) -> npt.NDArray[np.int64]:
    """One number per row: the combination of its single labels and, for each ``multi`` task, the
    rarest of its labels; int64 (N,). Combinations of which ``fraction`` is less than one row are
    put together by the first task's label alone: with many tasks nearly every row has its own."""
    columns: list[npt.NDArray[np.int64]] = []
    for task in tasks:
        labels = examples.labels[task.name]
        if task.kind == "single":
            columns.append(labels)
        elif task.kind == "multi":
            counts = labels.sum(axis=0)
            rarity = np.where(labels, counts, np.iinfo(np.int64).max)
            columns.append(np.where(labels.any(axis=1), rarity.argmin(axis=1), -1) + 1)
    strata = joint(columns, len(examples))
    if len(columns) < 2:
        return strata
    rare = np.bincount(strata)[strata] * fraction < 1
    return np.where(rare, strata.max() + 1 + joint(columns[:1], len(examples)), strata)


def hold_out_rows(
    examples: Examples,
    numbers: npt.NDArray[np.int64],
    tasks: Sequence[Task],
    *,
    fraction: float,
    seed: int,
    what: str,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(rows that stay, rows held out), texts of one number on one side. Raises ``DataError`` when
    nothing could be held out."""
    kept, held = hold_out(
        numbers, strata_of(examples, tasks, fraction=fraction), fraction=fraction, seed=seed
    )
    if not len(held):
        raise DataError(
            f"{len(examples)} rows with {len(np.unique(numbers))} distinct texts are too few to "
            f"hold out {fraction:g} of them as {what} rows; raise the fraction or give more rows"
        )
    return kept, held


def refuse_as_numbers(column: str, classes: Sequence[str], rows: int) -> None:
    """Raise ``DataError`` where a column holds no classes: nearly every row has one of its own, or
    there are many and all are numbers."""
    numbers = [name for name in classes if NUMBER.fullmatch(name)]
    share = len(numbers) > 0.9 * len(classes)
    broken = share and any(not name.lstrip("-").isdigit() for name in numbers)
    if rows < FEW_ROWS or not (len(classes) > rows / 2 or (broken and len(classes) > FEW_ROWS)):
        return
    sentence = f"column {column!r} has {len(classes):,} classes in {rows:,} rows: "
    if share:
        raise DataError(sentence + "these look like numbers, and llmembed answers classes")
    raise DataError(sentence + "nearly every row has one of its own; is this the label column?")


def uncut_note(task: Task, splits: Iterable[Examples], separator: str) -> str | None:
    """Where no row of a ``multi`` task has more than one label and most labels hold another
    separator: which, and how to say so. Else None."""
    counts = np.zeros(len(task.classes), dtype=np.int64)
    for part in splits:
        labels = part.labels[task.name]
        if (labels.sum(axis=1) > 1).any():
            return None
        counts += labels.sum(axis=0)
    for other in OTHER_SEPARATORS:
        holding = np.array([other in name for name in task.classes])
        # A class that is cut into other classes tells as much as many that hold it.
        cut = any(
            len(pieces := {piece.strip() for piece in name.split(other)}) > 1
            and pieces <= {*task.classes}
            for name in task.classes
            if other in name
        )
        many = counts[holding].sum() > counts.sum() / 2
        if other != separator and (many or cut):
            shown = {"\n": "a line break", "\t": "a tab"}.get(other, f"{other!r}")
            word = {"\n": "'\"\\n\"'", "\t": "'\"\\t\"'"}.get(other, f"'{other}'")
            return (
                f"no row has more than one label of {task.name}, but {counts[holding].sum()} of "
                f"{counts.sum()} hold {shown}: if that stands between labels, say "
                f"data.separator={word}"
            )
    return None


def leaked_rows(numbers: Mapping[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.bool_]:
    """Which rows of test, bool (N,), have a text of train or valid."""
    earlier = np.zeros(1 + max(int(part.max()) for part in numbers.values()), dtype=bool)
    for split in ("train", "valid"):
        earlier[numbers[split]] = True
    found: npt.NDArray[np.bool_] = earlier[numbers["test"]]
    return found


def facts_of(
    tasks: Sequence[Task],
    splits: Mapping[str, Examples],
    numbers: Mapping[str, npt.NDArray[np.int64]],
    *,
    dropped: bool = False,
) -> dict[str, str]:
    """Notes on equal texts: across splits, within them, and under different labels. ``dropped``:
    those of test that occur elsewhere are left out."""
    size = 1 + max(int(part.max()) for part in numbers.values())
    occurs = {split: np.bincount(part, minlength=size) > 0 for split, part in numbers.items()}
    notes: dict[str, str] = {}
    seen = occurs["train"]
    if "test" in numbers:
        leaked = int(leaked_rows(numbers).sum())
        if leaked:
            what = "are left out" if dropped else "stay; data.drop_leaks=true leaves them out"
            notes["leak_test"] = (
                f"{leaked} of {len(numbers['test'])} test rows have a text that also occurs in "
                f"train or valid; they {what}"
            )
    leaked = int(seen[numbers["valid"]].sum())
    if leaked:
        notes["leak_valid"] = (
            f"{leaked} of {len(numbers['valid'])} valid rows have a text that also occurs in train"
        )
    repeated = {split: len(part) - int(occurs[split].sum()) for split, part in numbers.items()}
    if any(repeated.values()):
        notes["repeated"] = "repeated texts: " + ", ".join(
            f"{count} in {split}" for split, count in repeated.items() if count
        )
    for task in tasks:
        if task.kind != "single":
            continue
        labels = np.concatenate([splits[split].labels[task.name] for split in numbers])
        texts = np.concatenate(list(numbers.values()))
        one = np.empty(size, dtype=np.int64)
        one[texts] = labels  # one of each text's labels
        several = len(np.unique(texts[labels != one[texts]]))
        if several:
            notes[f"conflicts_{task.name}"] = (
                f"{several} distinct texts carry more than one label of {task.name}"
            )
    return notes
