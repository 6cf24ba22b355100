"""A labelled corpus: read from a source, checked, split, and known by its digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from llmembed.contract import Examples, Task
from llmembed.errors import ConfigError, DataError
from llmembed.texts.benchmarks import BENCHMARKS, Benchmark
from llmembed.texts.columns import Columns, closest, listed
from llmembed.texts.files import DataFile, expand, split_of
from llmembed.texts.quarantine import Quarantine, QuarantineWriter

if TYPE_CHECKING:
    import pyarrow as pa

    from llmembed.texts.blocks import Block

BLOCK_ROWS = 1 << 16
Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """N labelled texts in splits.

    ``digest``: sha256 over texts, labels, classes and split (see ``digest_of``). ``partial``: a
    sentence when these are not the official rows, and then ``name`` ends in ``-part``. ``notes``:
    what a reader of its figures must know (source, revision, texts of test that also occur in
    train, …).
    """

    name: str
    tasks: tuple[Task, ...]
    train: Examples
    valid: Examples
    test: Examples | None
    digest: str
    partial: str | None = None
    quarantined: Quarantine | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, Examples]:
        found = {"train": self.train, "valid": self.valid}
        return found if self.test is None else {**found, "test": self.test}


@dataclass(frozen=True, kw_only=True)
class CorpusSource:
    """Where a corpus comes from; made by ``benchmark``, ``files`` or ``hub``.

    ``test_fraction``: share of the training rows held out as test when the source has no test
    rows, always by the same seed; 0 leaves ``Corpus.test`` None.
    """

    name: str
    columns: Columns
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    named: Benchmark | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    hub_id: str | None = None
    hub_config: str | None = None
    hub_revision: str | None = None
    hub_splits: Mapping[str, str] = field(default_factory=dict)
    test_fraction: float = 0.0

    @classmethod
    def benchmark(cls, name: str, **options: Any) -> CorpusSource:
        """A benchmark by name, e.g. ``benchmark("agnews", balanced=True)``."""
        if name not in BENCHMARKS:
            raise ConfigError(
                f"there is no benchmark {name!r}; there are {listed(BENCHMARKS)}."
                + closest(name, BENCHMARKS)
            )
        known = BENCHMARKS[name]
        for option in options:
            if option not in known.options:
                raise ConfigError(
                    f"benchmark {name!r} has no option {option!r}; "
                    f"it has {listed(known.options) or 'none'}"
                )
        return cls(name=name, columns=known.columns, named=known, options=options)

    @classmethod
    def files(
        cls,
        train: Paths,
        *,
        columns: Columns,
        valid: Paths | None = None,
        test: Paths | None = None,
        name: str | None = None,
        test_fraction: float = 0.0,
    ) -> CorpusSource:
        """Files, folders or globs. When only ``train`` is given and some of its files are named
        ``train…``, ``valid…`` (``validation``, ``dev``) or ``test…``, they are taken as these
        splits."""
        given = {"train": train, "valid": valid, "test": test}
        paths = {split: _addresses(path) for split, path in given.items() if path is not None}
        stem = PurePosixPath(paths["train"][0].rstrip("/")).name.partition(".")[0]
        stem = "".join(char if char.isalnum() or char in "-_" else "-" for char in stem).strip("-")
        return cls(
            name=name or stem or "data",
            columns=columns,
            paths=paths,
            test_fraction=_fraction("test_fraction", test_fraction),
        )

    @classmethod
    def hub(
        cls,
        hub_id: str,
        *,
        columns: Columns,
        config: str | None = None,
        revision: str | None = None,
        splits: Mapping[str, str] | None = None,
        name: str | None = None,
        test_fraction: float = 0.0,
    ) -> CorpusSource:
        """A data set of the Hugging Face hub; ``splits``: ours (train, valid, test) -> theirs."""
        return cls(
            name=name or hub_id.rpartition("/")[2],
            columns=columns,
            hub_id=hub_id,
            hub_config=config,
            hub_revision=revision,
            hub_splits=dict(splits or {}),
            test_fraction=_fraction("test_fraction", test_fraction),
        )


def load_corpus(
    source: CorpusSource,
    *,
    quarantine_folder: Path,
    seed: int = 0,
    valid_fraction: float = 0.1,
    max_bad_fraction: float = 0.01,
) -> Corpus:
    """Read, check, encode and split.

    Bad rows go to ``quarantine_folder/NAME.jsonl``. A source with validation rows of its own
    keeps them; otherwise ``valid_fraction`` of train is held out by ``seed``, stratified by label,
    equal texts on one side. Raises ``DataError`` when the source can't be read or more than
    ``max_bad_fraction`` of its rows are bad.
    """
    from llmembed.texts.facts import facts_of, hold_out_rows
    from llmembed.texts.labels import encode

    _fraction("valid_fraction", valid_fraction, above_zero=True)
    blocks, found = _open(source)
    # options change the rows, so they belong to the name
    name = "-".join([source.name, *(str(key) for key, on in source.options.items() if on)])
    with QuarantineWriter(Path(quarantine_folder) / f"{name}.jsonl") as writer:
        tables = {split: _good_rows(rows, source, writer) for split, rows in blocks.items()}
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
                f"{max_bad_fraction:.2%}; most often ({times} times): {reason}; "
                f"all are listed in {writer.address}"
            )
    if "train" not in tables:
        raise DataError(f"{source.name} has no training rows")

    tasks, splits, unseen = encode(tables, source.columns)
    notes = dict(found)
    if "test" not in splits and source.test_fraction:
        splits["train"], splits["test"] = hold_out_rows(
            splits["train"], tasks, fraction=source.test_fraction, seed=0, what="test"
        )
        notes["test"] = f"{source.test_fraction:g} of the rows held out as test, seed 0"
    partial = None
    if source.named is not None:
        partial = source.named.partial_sentence({s: len(e) for s, e in splits.items()})
    if "valid" in splits:
        notes["valid"] = "the source's own validation rows"
    else:
        splits["train"], splits["valid"] = hold_out_rows(
            splits["train"], tasks, fraction=valid_fraction, seed=seed, what="validation"
        )
        notes["valid"] = (
            f"{valid_fraction:g} of the training rows, seed {seed}, stratified by label, "
            "equal texts on one side"
        )
    return Corpus(
        name=f"{name}-part" if partial else name,
        tasks=tasks,
        train=splits["train"],
        valid=splits["valid"],
        test=splits.get("test"),
        digest=digest_of(tasks, splits),
        partial=partial,
        quarantined=quarantined,
        notes={**notes, **unseen, **facts_of(tasks, splits)},
    )


def digest_of(tasks: Sequence[Task], splits: Mapping[str, Examples]) -> str:
    """sha256 over, in this order: the tasks as sorted JSON; then for train, valid, test the
    split's name and row count, the texts (and words) as int64 offsets and UTF-8 bytes, and each
    task's labels as little-endian bytes."""
    import numpy as np
    import pyarrow as pa

    digest = hashlib.sha256()

    def add_strings(strings: Sequence[str]) -> None:
        array = pa.array(strings, pa.large_string())
        for buffer in array.buffers()[1:]:
            digest.update(buffer or b"")

    digest.update(json.dumps([task.to_json() for task in tasks], sort_keys=True).encode())
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


def _addresses(paths: Paths) -> tuple[str, ...]:
    listed_paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not listed_paths:
        raise ConfigError("no data file is named")
    return tuple(str(path) for path in listed_paths)


def _fraction(name: str, value: float, *, above_zero: bool = False) -> float:
    if not 0 <= value < 1 or (above_zero and value == 0):
        raise ConfigError(f"{name} is {value}; it must lie between 0 and 1")
    return value


def _open(source: CorpusSource) -> tuple[dict[str, Iterator[Block]], dict[str, str]]:
    """The blocks of each split, not yet read where they are files, and notes."""
    from llmembed.texts.blocks import table_blocks

    fields = source.columns.fields
    if source.named is not None:
        tables, notes = source.named.load(dict(source.options))
    elif source.hub_id is not None:
        from llmembed.texts.hub import load_hub

        tables, notes = load_hub(
            source.hub_id, source.hub_config, source.hub_revision, source.hub_splits
        )
    else:
        files = {split: expand(paths) for split, paths in source.paths.items()}
        if set(files) == {"train"}:
            files = _by_name(files["train"])
        notes = {"source": listed(f.address for group in files.values() for f in group)}
        return {split: _file_blocks(group, fields) for split, group in files.items()}, notes
    return {
        split: table_blocks(table, fields, name=f"{source.name}/{split}")
        for split, table in tables.items()
    }, notes


def _by_name(files: list[DataFile]) -> dict[str, list[DataFile]]:
    """Split by file name; everything is train unless some file is."""
    splits: dict[str, list[DataFile]] = {}
    for file in files:
        splits.setdefault(split_of(file.address) or "", []).append(file)
    if "train" not in splits:
        return {"train": files}
    if "" in splits:
        raise DataError(
            f"some files are named as splits, but {listed(f.address for f in splits[''])} is not; "
            "say which files are train and which are test"
        )
    return splits


def _file_blocks(files: Sequence[DataFile], fields: Sequence[Any]) -> Iterator[Block]:
    from llmembed.texts.blocks import read_blocks

    for file in files:
        yield from read_blocks(file, fields, rows=BLOCK_ROWS)


def _good_rows(blocks: Iterator[Block], source: CorpusSource, writer: QuarantineWriter) -> pa.Table:
    import pyarrow as pa

    from llmembed.texts.checks import check

    good: list[pa.Table] = []
    for block in blocks:
        checked = check(block, source.columns.fields, source.columns)
        writer.add(checked.bad)
        good.append(checked.table)
    return pa.concat_tables(good) if good else pa.table({})
