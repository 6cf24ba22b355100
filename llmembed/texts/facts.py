"""What must be said beside a corpus's figures, and the rows held out by label and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from llmembed.contract import Examples, Task
from llmembed.errors import DataError
from llmembed.texts.split import hold_out, joint


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


def facts_of(
    tasks: Sequence[Task],
    splits: Mapping[str, Examples],
    numbers: Mapping[str, npt.NDArray[np.int64]],
) -> dict[str, str]:
    """Notes on equal texts: across splits, within them, and under different labels."""
    size = 1 + max(int(part.max()) for part in numbers.values())
    occurs = {split: np.bincount(part, minlength=size) > 0 for split, part in numbers.items()}
    notes: dict[str, str] = {}
    seen = occurs["train"]
    if "test" in numbers:
        earlier = seen | occurs["valid"]
        leaked = int(earlier[numbers["test"]].sum())
        if leaked:
            notes["leak_test"] = (
                f"{leaked} of {len(numbers['test'])} test rows have a text that also occurs in "
                "train or valid"
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
