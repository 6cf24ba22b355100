"""Parquet files, row groups streamed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmembed.errors import DataError
from llmembed.texts.blocks import Block, with_class_names
from llmembed.texts.columns import Field, require_columns
from llmembed.texts.encodings import START_BYTES, refuse_no_text
from llmembed.texts.files import DataFile

MAGIC = b"PAR1"


def open_parquet(file: DataFile) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file.open_seekable())
    except (pa.ArrowInvalid, OSError) as error:
        if not (start := file.start(START_BYTES)).startswith(MAGIC):
            refuse_no_text(start, file.address)
        raise DataError(f"{file.address} is no readable Parquet file: {error}") from error


def parquet_blocks(
    file: DataFile,
    fields: Sequence[Field],
    *,
    rows: int,
    keep: Sequence[str] = (),
    row_groups: Sequence[int] | None = None,
    first_row: int = 0,
) -> Iterator[Block]:
    """Blocks of a file, or of some of its row groups, whose first row has number ``first_row``."""
    wanted = list(dict.fromkeys([*(field.column for field in fields), *keep]))
    with open_parquet(file) as parquet:
        require_columns(wanted, parquet.schema_arrow.names, file.address)
        groups = range(parquet.num_row_groups) if row_groups is None else row_groups
        try:
            for batch in parquet.iter_batches(rows, columns=wanted, row_groups=list(groups)):
                table = pa.Table.from_batches([batch])
                table = table.replace_schema_metadata(parquet.schema_arrow.metadata)
                yield Block(
                    file=file.address,
                    table=with_class_names(table).select(wanted),
                    rows=np.arange(first_row, first_row + len(batch), dtype=np.int64),
                    line_of=lambda row: row + 1,
                )
                first_row += len(batch)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise DataError(f"can't read {file.address} near row {first_row}: {error}") from error


def row_group_parts(file: DataFile, *, rows: int) -> list[tuple[list[int], int]]:
    """Row groups bundled into parts of at least ``rows`` rows: (groups, number of first row)."""
    parts: list[tuple[list[int], int]] = []
    with open_parquet(file) as parquet:
        total = size = 0
        for group in range(parquet.num_row_groups):
            if not parts or size >= rows:
                parts.append(([], total))
                size = 0
            parts[-1][0].append(group)
            count = parquet.metadata.row_group(group).num_rows
            size += count
            total += count
    return parts
