"""Arrow files, as ``save_to_disk`` of ``datasets`` writes them, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from llmembed.errors import DataError
from llmembed.texts.blocks import Block, with_class_names
from llmembed.texts.columns import Field, require_columns
from llmembed.texts.encodings import START_BYTES, refuse_no_text
from llmembed.texts.files import DataFile

MAGIC = b"ARROW1"


def arrow_blocks(
    file: DataFile, fields: Sequence[Field], *, rows: int, keep: Sequence[str] = ()
) -> Iterator[Block]:
    """Blocks of a file in the streaming format or the file format."""
    wanted = list(dict.fromkeys([*(field.column for field in fields), *keep]))
    done = 0
    try:
        for batch in _batches(file):
            if not done:
                require_columns(wanted, batch.schema.names, file.address)
            whole = pa.Table.from_batches([batch])
            for start in range(0, whole.num_rows, rows):
                part = with_class_names(whole.slice(start, rows).select(wanted))
                yield Block(
                    file=file.address,
                    table=part,
                    rows=np.arange(done, done + part.num_rows, dtype=np.int64),
                    line_of=lambda row: row + 1,
                )
                done += part.num_rows
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if not (beginning := file.start(START_BYTES)).startswith(MAGIC):
            refuse_no_text(beginning, file.address)
        raise DataError(f"{file.address} is no readable Arrow file: {error}") from error


def _batches(file: DataFile) -> Iterator[pa.RecordBatch]:
    if file.start(len(MAGIC)) == MAGIC:
        with pa.ipc.open_file(file.open_seekable()) as reader:
            yield from (reader.get_batch(n) for n in range(reader.num_record_batches))
        return
    with file.open_bytes() as stream, pa.ipc.open_stream(stream) as reader:
        yield from reader
