"""Where a corpus comes from: a benchmark, files, or the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmembed.errors import ConfigError
from llmembed.texts.benchmarks import BENCHMARKS, Benchmark
from llmembed.texts.columns import Columns, closest, listed
from llmembed.texts.files import DataFile, expand
from llmembed.texts.form import Form
from llmembed.texts.naming import (
    beside_others,
    by_name,
    described_note,
    name_of,
    said_of_files,
)

if TYPE_CHECKING:
    from llmembed.texts.blocks import Block

BLOCK_ROWS = 1 << 16
Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True, kw_only=True)
class CorpusSource:
    """Where a corpus comes from; made by ``benchmark``, ``files`` or ``hub``.

    ``test_fraction``: share of the training rows held out as test when the source has no test
    rows, always by the same seed; 0 leaves ``Corpus.test`` None. ``form``: how files are written.
    ``split_by_name``: whether names of files and folders say which part they are.
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
    form: Form = field(default_factory=Form)
    split_by_name: bool = True

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
        form: Form | None = None,
        split_by_name: bool = True,
    ) -> CorpusSource:
        """Files, folders or globs. When only ``train`` is given and some of its files or folders
        are named as parts (see ``naming.part_named``), they are taken as these, unless
        ``split_by_name`` is false. Without a ``name`` it is that of ``naming.name_of``."""
        given = {"train": train, "valid": valid, "test": test}
        paths = {split: _addresses(path) for split, path in given.items() if path is not None}
        return cls(
            name=name or name_of(paths["train"][0]),
            columns=columns,
            paths=paths,
            test_fraction=fraction_of("test_fraction", test_fraction),
            form=form or Form(),
            split_by_name=split_by_name,
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
            test_fraction=fraction_of("test_fraction", test_fraction),
        )


def _addresses(paths: Paths) -> tuple[str, ...]:
    listed_paths = [paths] if isinstance(paths, (str, Path)) else list(paths)
    if not listed_paths:
        raise ConfigError("no data file is named")
    return tuple(str(path) for path in listed_paths)


def fraction_of(name: str, value: float, *, above_zero: bool = False) -> float:
    if not 0 <= value < 1 or (above_zero and value == 0):
        raise ConfigError(f"{name} is {value}; it must lie between 0 and 1")
    return value


@dataclass(frozen=True, kw_only=True)
class Opened:
    """The blocks of each split, not yet read where they are files, and notes. ``may_lack_labels``:
    splits that nobody asked for by name, which are left out where they hold no labels."""

    blocks: dict[str, Iterator[Block]]
    notes: dict[str, str]
    may_lack_labels: frozenset[str] = frozenset()


def open_source(source: CorpusSource) -> Opened:
    """Raises ``DataError`` when there is nothing, or it is in doubt what is test."""
    from llmembed.texts.blocks import table_blocks

    fields = source.columns.fields
    if source.named is not None:
        tables, notes = source.named.load(dict(source.options))
    elif source.hub_id is not None:
        from llmembed.texts.hub import load_hub

        tables, notes = load_hub(
            source.hub_id,
            source.hub_config,
            source.hub_revision,
            source.hub_splits,
            [column for column, _ in source.columns.tasks.values()],
        )
    else:
        return _open_files(source)
    blocks = {
        split: table_blocks(table, fields, name=f"{source.name}/{split}")
        for split, table in tables.items()
    }
    # a benchmark's own rows are known, those of the hub may be withheld
    held = set(tables) - {"train", *source.hub_splits} if source.hub_id else set()
    return Opened(blocks=blocks, notes=notes, may_lack_labels=frozenset(held))


def _open_files(source: CorpusSource) -> Opened:
    files = {split: expand(paths, source.form) for split, paths in source.paths.items()}
    notes: dict[str, str] = {}
    named = set(files)
    if source.split_by_name:
        if named == {"train"}:
            files = by_name(files["train"], source.paths["train"])
        else:
            others = {split: group for split, group in files.items() if split != "train"}
            files = beside_others(files["train"], others, source.paths["train"])
    words = said_of_files(files) or described_note(files["train"][0].address)
    if words:
        notes["files"] = words
    notes["source"] = listed(file.address for group in files.values() for file in group)
    return Opened(
        blocks={split: _file_blocks(group, source) for split, group in files.items()},
        notes=notes,
        may_lack_labels=frozenset(set(files) - named),
    )


def _file_blocks(files: Sequence[DataFile], source: CorpusSource) -> Iterator[Block]:
    from llmembed.texts.reading import read_blocks

    for file in files:
        yield from read_blocks(file, source.columns.fields, rows=BLOCK_ROWS)
