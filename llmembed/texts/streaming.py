"""Rows of files of any size for prediction, in bounded memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from llmembed.errors import ConfigError, DataError
from llmembed.texts.columns import Field
from llmembed.texts.files import DataFile, expand, whole_address
from llmembed.texts.form import Form
from llmembed.texts.quarantine import QuarantineWriter

if TYPE_CHECKING:
    import pyarrow as pa

    from llmembed.texts.blocks import Block

LOOKS_AT_ONCE = 8
PART_ROWS = 1 << 17
"""A Parquet file is cut at row groups into parts of at least this many rows."""


@dataclass(frozen=True, kw_only=True)
class FileReader:
    """One file, or some row groups of one; picklable, called in a worker.

    Yields tables of up to ``chunk_rows`` rows: ``index`` int64, the row's number in its file from
    0 (bad rows counted, so it does not move when they are mended), ``file``, ``text``, and the
    columns of ``keep``. Bad rows are written to ``quarantine``, whole once the reader is
    exhausted; without a quarantine the first bad row raises ``DataError``. ``assumed``: what was
    taken for granted of the file, in words.
    """

    file: DataFile
    text_column: str
    chunk_rows: int
    keep: tuple[str, ...] = ()
    quarantine: str | None = None
    row_groups: tuple[int, ...] | None = None
    first_row: int = 0
    assumed: str = ""

    def __call__(self) -> Iterator[pa.Table]:
        import pyarrow as pa

        from llmembed.texts.checks import check

        fields = (Field(column=self.text_column, role="text"),)
        writer = QuarantineWriter(self.quarantine) if self.quarantine else None
        try:
            for block in self._blocks(fields):
                checked = check(block, fields)
                if checked.bad and writer is None:
                    first = checked.bad[0]
                    raise DataError(f"{first.file}, line {first.line}: {first.reason}")
                if writer is not None:
                    writer.add(checked.bad)
                if not checked.table.num_rows:
                    continue
                kept = block.table.take(pa.array(checked.kept))
                columns: dict[str, pa.Array | pa.ChunkedArray] = {
                    "index": pa.array(checked.rows),
                    "file": pa.array([self.file.address], pa.string()).take(
                        pa.array([0] * len(checked.rows), pa.int8())
                    ),
                    "text": checked.table[self.text_column],
                }
                yield pa.table(columns | {name: kept[name] for name in self.keep})
        finally:
            if writer is not None:
                writer.close()

    def _blocks(self, fields: tuple[Field, ...]) -> Iterator[Block]:
        from llmembed.texts.reading import read_blocks

        if self.row_groups is None:
            return read_blocks(self.file, fields, rows=self.chunk_rows, keep=self.keep)
        from llmembed.texts.parquet import parquet_blocks

        return parquet_blocks(
            self.file,
            fields,
            rows=self.chunk_rows,
            keep=self.keep,
            row_groups=self.row_groups,
            first_row=self.first_row,
        )


def readers(
    source: str | Path | Sequence[str | Path],
    text_column: str,
    chunk_rows: int = 1024,
    *,
    keep: Sequence[str] = (),
    quarantine_folder: str | Path | None = None,
    form: Form | None = None,
) -> list[FileReader]:
    """One reader for each file, several for a large Parquet file.

    ``keep``: columns handed on as they are (csv: strings; jsonl: strings, other values as JSON).
    ``quarantine_folder`` may be an address such as ``s3://…``. ``form``: how the files are written;
    what it leaves open is settled here, by each file's beginning. Raises ``DataError`` when there
    is no file, or one that begins as no text or without a column; what is wrong further inside is
    raised by its reader.
    """
    from llmembed.texts.reading import look

    if chunk_rows < 1:
        raise ConfigError(f"chunk_rows is {chunk_rows}; it must be 1 or more")
    for name in ("index", "file", "text"):
        if name in keep:
            raise ConfigError(f"column {name!r} can't be kept: its name is taken by our own")
    fields = (Field(column=text_column, role="text"),)
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        looked = list(pool.map(lambda file: look(file, fields, keep), expand(source, form)))
    found: list[FileReader] = []
    for file, assumed in looked:
        parts: list[tuple[tuple[int, ...] | None, int]] = [(None, 0)]
        if file.format == "parquet":
            from llmembed.texts.parquet import row_group_parts

            groups = row_group_parts(file, rows=PART_ROWS)
            if len(groups) > 1:
                parts = [(tuple(part), first_row) for part, first_row in groups]
        for number, (row_groups, first_row) in enumerate(parts):
            found.append(
                FileReader(
                    file=file,
                    text_column=text_column,
                    chunk_rows=chunk_rows,
                    keep=tuple(keep),
                    quarantine=_quarantine(quarantine_folder, file, number),
                    row_groups=row_groups,
                    first_row=first_row,
                    assumed=assumed,
                )
            )
    return found


def _quarantine(folder: str | Path | None, file: DataFile, part: int) -> str | None:
    """A name of its own for each part of each file, the same on every run."""
    if folder is None:
        return None
    digest = hashlib.sha256(file.address.encode()).hexdigest()[:8]
    name = f"{PurePosixPath(file.address).name}-{digest}-{part}.jsonl"
    return whole_address(f"{str(folder).rstrip('/')}/{name}")
