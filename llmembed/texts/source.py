"""Where a corpus comes from: a benchmark, files, or the hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from llmembed.errors import ConfigError, DataError
from llmembed.texts.benchmarks import BENCHMARKS, Benchmark
from llmembed.texts.columns import Columns, closest, listed
from llmembed.texts.files import DataFile, expand, split_of

if TYPE_CHECKING:
    from llmembed.texts.blocks import Block

BLOCK_ROWS = 1 << 16
Paths = str | Path | Sequence[str | Path]


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
            test_fraction=fraction_of("test_fraction", test_fraction),
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


def open_source(source: CorpusSource) -> tuple[dict[str, Iterator[Block]], dict[str, str]]:
    """The blocks of each split, not yet read where they are files, and notes."""
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
