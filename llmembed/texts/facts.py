"""What must be said beside a corpus's figures, and the rows held out by label and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from llmembed.contract import Examples, Task
from llmembed.errors import DataError
from llmembed.texts.split import hold_out, joint


def _text_numbers(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Equal texts get equal numbers, int64 (N,)."""
    encoded = pa.array(texts, pa.large_string()).dictionary_encode()
    return np.asarray(encoded.indices, dtype=np.int64)


def strata_of(examples: Examples, tasks: Sequence[Task]) -> npt.NDArray[np.int64]:
    """One number per row: the combination of its single labels and, for each ``multi`` task, the
    rarest of its labels; int64 (N,)."""
    columns: list[npt.NDArray[np.int64]] = []
    for task in tasks:
        labels = examples.labels[task.name]
        if task.kind == "single":
            columns.append(labels)
        elif task.kind == "multi":
            counts = labels.sum(axis=0)
            rarity = np.where(labels, counts, np.iinfo(np.int64).max)
            columns.append(np.where(labels.any(axis=1), rarity.argmin(axis=1), -1) + 1)
    return joint(columns, len(examples))


def hold_out_rows(
    examples: Examples, tasks: Sequence[Task], *, fraction: float, seed: int, what: str
) -> tuple[Examples, Examples]:
    """(what stays, what is held out). Raises ``DataError`` when nothing could be held out."""
    numbers = _text_numbers(examples.texts)
    kept, held = hold_out(numbers, strata_of(examples, tasks), fraction=fraction, seed=seed)
    if not len(held):
        raise DataError(
            f"{len(examples)} rows with {len(np.unique(numbers))} distinct texts are too few to "
            f"hold out {fraction:g} of them as {what} rows; raise the fraction or give more rows"
        )
    return examples.select(kept), examples.select(held)


def facts_of(tasks: Sequence[Task], splits: Mapping[str, Examples]) -> dict[str, str]:
    """Notes on equal texts: across splits, within them, and under different labels."""
    names = list(splits)
    lengths = [len(splits[name]) for name in names]
    numbers = _text_numbers([text for name in names for text in splits[name].texts])
    cuts = np.split(numbers, np.cumsum(lengths)[:-1])
    by_split = dict(zip(names, cuts, strict=True))
    notes: dict[str, str] = {}
    seen = by_split["train"]
    if "valid" in by_split and "test" in by_split:
        seen = np.concatenate([seen, by_split["valid"]])
    for split, earlier in (("test", seen), ("valid", by_split["train"])):
        if split not in by_split:
            continue
        leaked = int(np.isin(by_split[split], earlier).sum())
        if leaked:
            of = "train or valid" if split == "test" else "train"
            notes[f"leak_{split}"] = (
                f"{leaked} of {len(by_split[split])} {split} rows have a text that also occurs "
                f"in {of}"
            )
    repeated = {split: len(values) - len(np.unique(values)) for split, values in by_split.items()}
    if any(repeated.values()):
        notes["repeated"] = "repeated texts: " + ", ".join(
            f"{count} in {split}" for split, count in repeated.items() if count
        )
    for task in tasks:
        if task.kind != "single":
            continue
        labels = np.concatenate([splits[name].labels[task.name] for name in names])
        pairs = np.unique(np.stack([numbers, labels]), axis=1)
        several = int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())
        if several:
            notes[f"conflicts_{task.name}"] = (
                f"{several} distinct texts carry more than one label of {task.name}"
            )
    return notes
