"""Files of every format as blocks, and what is taken for granted of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from llmembed.errors import DataError
from llmembed.texts.blocks import Block
from llmembed.texts.columns import Field
from llmembed.texts.files import DataFile, Format

LOOK_BYTES = 1 << 18
"""Of a file that is looked at before it is read."""


def read_blocks(
    file: DataFile, fields: Sequence[Field], *, rows: int, keep: Sequence[str] = ()
) -> Iterator[Block]:
    """Blocks of up to ``rows`` rows with the columns of ``fields`` and, as they are, ``keep``.
    Raises ``DataError`` when the file can't be read or a column is missing."""
    try:
        yield from _of_format(file.format)(file, fields, rows=rows, keep=keep)
    except OSError as error:  # a compressed file that is damaged or cut off
        raise DataError(f"can't read {file.address}: {error}") from error


def _of_format(name: Format) -> Callable[..., Iterator[Block]]:
    if name == "parquet":
        from llmembed.texts.parquet import parquet_blocks

        return parquet_blocks
    if name == "arrow":
        from llmembed.texts.arrow_files import arrow_blocks

        return arrow_blocks
    if name == "jsonl":
        from llmembed.texts.jsonl import jsonl_blocks

        return jsonl_blocks
    from llmembed.texts.delimited import delimited_blocks

    return delimited_blocks


def look(file: DataFile, fields: Sequence[Field], keep: Sequence[str]) -> tuple[DataFile, str]:
    """The file with its delimiter and encoding settled by its beginning, and what was assumed, in
    words; no more than that is read. Raises ``DataError`` as reading it would."""
    wanted = list(dict.fromkeys([*(field.column for field in fields), *keep]))
    if file.format == "jsonl":
        from llmembed.texts.json_shapes import look_at_json

        seen = look_at_json(file, fields)
        return seen.file, seen.assumed
    if file.format in ("csv", "tsv"):
        from llmembed.texts.dialects import Dialect

        dialect = Dialect(file, wanted, sample_bytes=LOOK_BYTES)
        form = replace(dialect.file.form, delimiter=dialect.delimiter)
        return replace(file, form=form), dialect.assumed
    return file, ""
