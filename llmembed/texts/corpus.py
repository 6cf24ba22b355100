"""A labelled corpus: read from a source, checked, split, and known by its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llmembed.contract import Examples, Task
from llmembed.errors import DataError
from llmembed.texts.benchmarks.benchmark import ROWS
from llmembed.texts.quarantine import Quarantine, QuarantineWriter
from llmembed.texts.source import CorpusSource, fraction_of, open_source

OWN_VALID = "the source's own validation rows"
"""The note of a corpus whose validation part was not drawn from train."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """N labelled texts in splits.

    ``digest``: sha256 over texts, labels, classes and split (see ``digest_of``). ``partial``: a
    sentence when these are not the official rows, and then ``name`` ends in ``-part``. ``notes``:
    what a reader of its figures must know (source, revision, texts of test that also occur in
    train, …). ``quarantined`` and ``feedback_quarantined``: rows of the source, and of the feedback
    added to it, that could not be used. ``other_label``: the class of the texts that fit no other.
    """

    name: str
    tasks: tuple[Task, ...]
    train: Examples
    valid: Examples
    test: Examples | None
    digest: str
    partial: str | None = None
    quarantined: Quarantine | None = None
    feedback_quarantined: Quarantine | None = None
    notes: Mapping[str, str] = field(default_factory=dict)
    other_label: str | None = None

    @property
    def has_own_valid(self) -> bool:
        """Whether the source says which rows are validation."""
        return self.notes.get("valid") == OWN_VALID

    @property
    def splits(self) -> dict[str, Examples]:
        found = {"train": self.train, "valid": self.valid}
        return found if self.test is None else {**found, "test": self.test}

    def parted(
        self, splits: Mapping[str, Examples], *, tasks: tuple[Task, ...], **changes: Any
    ) -> Corpus:
        """This corpus with other ``splits`` and ``tasks``, its digest made anew; ``changes`` are of
        other fields."""
        return replace(
            self,
            tasks=tasks,
            train=splits["train"],
            valid=splits["valid"],
            test=splits.get("test"),
            digest=digest_of(tasks, splits),
            **changes,
        )


def load_corpus(
    source: CorpusSource,
    *,
    quarantine_folder: Path,
    seed: int = 0,
    valid_fraction: float = 0.1,
    max_bad_fraction: float = 0.01,
    drop_leaks: bool = False,
) -> Corpus:
    """Read, check, encode and split.

    Bad rows go to ``quarantine_folder/NAME.jsonl``. A source with validation rows of its own
    keeps them; otherwise ``valid_fraction`` of train is held out by ``seed``, stratified by label,
    equal texts on one side. Test rows whose text also occurs in train or valid stay, so that
    figures compare with those of others, unless ``drop_leaks``; ``notes`` say how many there are.
    Raises ``DataError`` when the source can't be read or more than ``max_bad_fraction`` of its
    rows are bad.
    """
    import numpy as np

    from llmembed.texts.facts import facts_of, hold_out_rows, leaked_rows, text_numbers
    from llmembed.texts.gathering import good_rows, way_out
    from llmembed.texts.labels import encode, texts_of

    fraction_of("valid_fraction", valid_fraction, above_zero=True)
    opened = open_source(source)
    # options change the rows, so they belong to the name
    name = "-".join([source.name, *(str(key) for key, on in source.options.items() if on)])
    with QuarantineWriter(Path(quarantine_folder) / f"{name}.jsonl") as writer:
        tables, seen = good_rows(opened, source.columns, writer)
    tables = {split: table for split, table in tables.items() if table.num_rows}
    total = sum(table.num_rows for table in tables.values()) + writer.count
    quarantined = None
    if writer.count:
        quarantined = Quarantine(
            count=writer.count, path=Path(writer.address), reasons=dict(writer.reasons)
        )
        if writer.count > max_bad_fraction * total:
            reason, times = writer.reasons.most_common(1)[0]
            raise DataError(
                f"{writer.count} of {total} rows of {source.name} are bad, above the limit of "
                f"{max_bad_fraction:.2%}; most often ({times} times): {reason}{way_out(reason)}; "
                f"all are listed in {writer.address}"
            )
    if "train" not in tables:
        raise DataError(f"{source.name} has no training rows")

    tasks, splits, said = encode(tables, source.columns)
    numbers = text_numbers(
        {split: texts_of(table, source.columns) for split, table in tables.items()}
    )
    notes = {**opened.notes, **seen}

    def hold_out_from_train(split: str, fraction: float, seed: int) -> None:
        train, of_train = splits["train"], numbers["train"]
        kept, held = hold_out_rows(
            train, of_train, tasks, fraction=fraction, seed=seed, what=ROWS[split]
        )
        splits["train"], splits[split] = train.select(kept), train.select(held)
        numbers["train"], numbers[split] = of_train[kept], of_train[held]

    if "test" not in splits and source.test_fraction:
        hold_out_from_train("test", source.test_fraction, 0)
        notes["test"] = f"{source.test_fraction:g} of the rows held out as test, seed 0"
    partial = None
    if source.named is not None:
        metrics = source.named.metrics
        tasks = tuple(replace(task, metric=metrics.get(task.name)) for task in tasks)
        partial = source.named.partial_sentence({s: len(e) for s, e in splits.items()})
    if "valid" in splits:
        notes["valid"] = OWN_VALID
    else:
        hold_out_from_train("valid", valid_fraction, seed)
        notes["valid"] = (
            f"{valid_fraction:g} of the training rows, seed {seed}, stratified by label, "
            "equal texts on one side"
        )
    facts = facts_of(tasks, splits, numbers, dropped=drop_leaks)
    if drop_leaks and "test" in splits:
        fresh = np.flatnonzero(~leaked_rows(numbers))
        if not len(fresh):
            raise DataError(f"data.drop_leaks leaves no test row of {name}: {facts['leak_test']}")
        splits["test"] = splits["test"].select(fresh)
    return Corpus(
        name=f"{name}-part" if partial else name,
        tasks=tasks,
        train=splits["train"],
        valid=splits["valid"],
        test=splits.get("test"),
        digest=digest_of(tasks, splits),
        partial=partial,
        quarantined=quarantined,
        notes={**notes, **said, **facts},
    )


def digest_of(tasks: Sequence[Task], splits: Mapping[str, Examples]) -> str:
    """sha256 over, in this order: the tasks' names, classes and kinds as sorted JSON, however they
    are judged; then for train, valid, test the
    split's name and row count, the texts (and words) as int64 offsets and UTF-8 bytes, and each
    task's labels as little-endian bytes."""
    import numpy as np
    import pyarrow as pa

    digest = hashlib.sha256()

    def add_strings(strings: Sequence[str]) -> None:
        array = pa.array(strings, pa.large_string())
        for buffer in array.buffers()[1:]:
            digest.update(buffer or b"")

    asked = [{"name": t.name, "classes": list(t.classes), "kind": t.kind} for t in tasks]
    digest.update(json.dumps(asked, sort_keys=True).encode())
    for split in ("train", "valid", "test"):
        if split not in splits:
            continue
        examples = splits[split]
        digest.update(f"{split} {len(examples)}\n".encode())
        add_strings(examples.texts)
        if examples.words is not None:
            digest.update(examples.offsets.astype("<i8").tobytes())
            add_strings([word for words in examples.words for word in words])
        for task in tasks:
            labels = np.asarray(examples.labels[task.name])
            kind = "u1" if labels.dtype == bool else "<i8"
            digest.update(np.ascontiguousarray(labels.astype(kind)).tobytes())
    return digest.hexdigest()
