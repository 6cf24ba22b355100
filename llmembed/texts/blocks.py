"""Rows in blocks of bounded size, as Arrow tables of the columns asked for.

The formats differ in what can go wrong before there is a table (a ragged csv line, a broken JSON
line); such rows come out as ``bad``, with the line they stand on. What may be wrong inside a
table is looked for in ``checks``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmembed.texts.columns import Field, require_columns
from llmembed.texts.quarantine import BadRow

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Block:
    """Up to ``rows`` rows of one file.

    ``table`` holds the columns asked for, ``rows`` int64 (n,) the number of each row in its file,
    from 0, rows that could not be parsed counted too. ``line_of`` finds the line a row starts on;
    it may read the file again, forwards only, so rows must be asked for in rising order.
    ``assumed``: what the reader took for granted of this file, in words for the user.
    """

    file: str
    table: pa.Table
    rows: npt.NDArray[np.int64]
    line_of: Callable[[int], int]
    bad: tuple[BadRow, ...] = ()
    assumed: str = ""


def table_blocks(table: pa.Table, fields: Sequence[Field], *, name: str) -> Iterator[Block]:
    """A table that is already in memory, as one block."""
    import numpy as np

    wanted = [field.column for field in fields]
    require_columns(wanted, table.column_names, name)
    yield Block(
        file=name,
        table=with_class_names(table).select(wanted),
        rows=np.arange(table.num_rows, dtype=np.int64),
        line_of=lambda row: row + 1,
    )


def with_class_names(table: pa.Table) -> pa.Table:
    """Integer columns that ``datasets`` marked as class labels, as their names (-1 as null)."""
    import json

    import pyarrow as pa
    import pyarrow.compute as pc

    metadata = table.schema.metadata or {}
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError):
        return table

    def names_of(feature: object) -> list[str] | None:
        if isinstance(feature, list):
            return names_of(feature[0]) if feature else None
        if not isinstance(feature, dict):
            return None
        if feature.get("_type") == "ClassLabel":
            return feature.get("names")
        return names_of(feature.get("feature"))

    for position, column in enumerate(table.column_names):
        names = names_of(features.get(column))
        values = table[column].combine_chunks()
        is_list = pa.types.is_list(values.type) or pa.types.is_large_list(values.type)
        flat = pc.list_flatten(values) if is_list else values
        if not names or not pa.types.is_integer(flat.type):
            continue
        inside = pc.and_(pc.greater_equal(flat, 0), pc.less(flat, len(names)))
        named = pa.array(names, pa.string()).take(pc.if_else(inside, flat, None))
        if is_list:
            lengths = pc.fill_null(pc.list_value_length(values), 0).to_numpy(zero_copy_only=False)
            offsets = pa.array([0, *lengths.cumsum().tolist()], pa.int32())
            named = pa.ListArray.from_arrays(offsets, named, mask=values.is_null())
        table = table.set_column(position, column, named)
    return table
