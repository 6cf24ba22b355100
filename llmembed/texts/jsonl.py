"""JSON: a block of whole lines at a time through Arrow's reader, and line by line in Python where a
block holds something that it refuses (a broken line, mixed types). Lists are brought to lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json as paj

from llmembed.texts.blocks import Block
from llmembed.texts.columns import Field, require_columns
from llmembed.texts.files import DataFile
from llmembed.texts.json_shapes import look_at_json, values_as_lines
from llmembed.texts.lists import cut
from llmembed.texts.quarantine import BadRow

BLOCK_BYTES = 8 << 20


def jsonl_blocks(
    file: DataFile, fields: Sequence[Field], *, rows: int, keep: Sequence[str] = ()
) -> Iterator[Block]:
    """An empty line is passed over, but counted as a line and as a row; of a list, objects are
    counted instead of lines."""
    seen_as = look_at_json(file, fields)
    file, assumed = seen_as.file, seen_as.assumed
    line = 0
    seen: dict[str, None] = {}
    found_all = False
    pieces = _whole_lines(file) if seen_as.lines else values_as_lines(file, BLOCK_BYTES)
    for data in pieces:
        count = data.count(b"\n") + (not data.endswith(b"\n"))
        if not found_all:
            seen |= dict.fromkeys(_keys_of(data))
            found_all = all(field.column in seen for field in fields)
            if not found_all:
                _look_further(data, fields, seen, file)
        table = None if keep else _fast(data, fields, count)
        if table is not None:
            numbers = np.arange(line, line + count, dtype=np.int64)
            bad: list[BadRow] = []
        else:
            table, numbers, bad = _slow(data, fields, keep, line, file.address)
        for start in range(0, max(len(numbers), 1), rows):
            yield Block(
                file=file.address,
                table=table.slice(start, rows),
                rows=numbers[start : start + rows],
                line_of=lambda row: row + 1,
                bad=tuple(bad) if start == 0 else (),
                assumed=assumed,
            )
        line += count


def _whole_lines(file: DataFile) -> Iterator[bytes]:
    rest = b""
    first = True
    with file.open_stream() as stream:
        while chunk := stream.read(BLOCK_BYTES):
            if first:
                chunk = chunk.removeprefix(b"\xef\xbb\xbf")
                first = False
            head, newline, tail = chunk.rpartition(b"\n")
            if newline:
                yield rest + head + newline
                rest = tail
            else:
                rest += chunk
    if rest:
        yield rest


def _object(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _keys_of(data: bytes) -> list[str]:
    first = _object(data.split(b"\n", 1)[0])
    return list(first) if isinstance(first, dict) else []


def _look_further(
    data: bytes, fields: Sequence[Field], seen: dict[str, None], file: DataFile
) -> None:
    """A column may be missing from the first line only; missing from the whole block is an
    error."""
    for line in data.splitlines():
        value = _object(line)
        if isinstance(value, dict):
            seen |= dict.fromkeys(value)
    if seen:
        require_columns([field.column for field in fields], list(seen), file.address)


def _fast(data: bytes, fields: Sequence[Field], count: int) -> pa.Table | None:
    """The block as Arrow reads it, or None when a row may have to be looked at in Python."""
    first = _object(data.split(b"\n", 1)[0])
    if not isinstance(first, dict):
        return None
    types: list[tuple[str, pa.DataType]] = []
    for field in fields:
        kind = pa.string() if field.role == "text" else _type_of(first.get(field.column))
        if kind is None:
            return None
        types.append((field.column, kind))
    try:
        table = paj.read_json(
            pa.BufferReader(data),
            read_options=paj.ReadOptions(block_size=len(data) + 1),
            parse_options=paj.ParseOptions(
                explicit_schema=pa.schema(types), unexpected_field_behavior="ignore"
            ),
        )
        table.validate(full=True)  # invalid UTF-8
    except pa.ArrowException:
        return None
    return table if table.num_rows == count else None


def _type_of(value: Any) -> pa.DataType | None:
    if isinstance(value, list):
        inner = {_type_of(item) for item in value}
        # integers in a list may be followed by strings: only strings are safe to promise
        return pa.list_(pa.string()) if inner == {pa.string()} else None
    for python, arrow in ((str, pa.string()), (bool, pa.bool_()), (int, pa.int64())):
        if isinstance(value, python):
            return arrow
    return None


def _slow(
    data: bytes, fields: Sequence[Field], keep: Sequence[str], first_row: int, address: str
) -> tuple[pa.Table, Any, list[BadRow]]:
    columns: dict[str, list[Any]] = {field.column: [] for field in fields}
    columns |= {name: [] for name in keep if name not in columns}
    rows: list[int] = []
    bad: list[BadRow] = []
    for number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), first_row):
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode("utf-8"))
            if not isinstance(value, dict):
                raise _Bad(f"the line holds {_named(value)}, not an object")
            found = {field.column: _value(value.get(field.column), field) for field in fields}
        except UnicodeDecodeError:
            bad.append(BadRow(file=address, line=number + 1, reason="not UTF-8", row=line))
            continue
        except (_Bad, ValueError, RecursionError) as error:
            reason = str(error) if isinstance(error, _Bad) else "the line is not JSON"
            bad.append(BadRow(file=address, line=number + 1, reason=reason, row=line))
            continue
        found |= {name: _kept(value.get(name)) for name in keep if name not in found}
        for name, items in columns.items():
            items.append(found[name])
        rows.append(number)
    roles = {field.column: field.role for field in fields}
    table = pa.table(
        {
            name: pa.array(
                items, pa.list_(pa.string()) if roles.get(name) == "many" else pa.string()
            )
            for name, items in columns.items()
        }
    )
    return table, np.array(rows, dtype=np.int64), bad


class _Bad(Exception):
    """This row can't be used; the message says why."""


def _named(value: Any) -> str:
    kinds: Mapping[type, str] = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return kinds[type(value)]


def _value(value: Any, field: Field) -> Any:
    """The value as the role wants it: text str, one label str, many labels list of str."""
    if value is None:
        return None
    if field.role == "many":
        if isinstance(value, str):
            found = cut(_encodable(value), field.separator)
            if found is None and value.strip()[:1] in tuple("[{("):
                raise _Bad(f"column {field.column!r} holds a list that can't be read")
            return found
        if not isinstance(value, list):
            raise _Bad(f"column {field.column!r} holds {_named(value)}, not a list or a string")
        return [_scalar(item, field) if item is not None else None for item in value]
    if field.role == "text":
        if not isinstance(value, str):
            raise _Bad(f"column {field.column!r} holds {_named(value)}, not a text")
        return _encodable(value)
    return _scalar(value, field)


def _scalar(value: Any, field: Field) -> str:
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    raise _Bad(f"column {field.column!r} holds {_named(value)}, not a name or a whole number")


def _encodable(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _Bad("not UTF-8") from None  # half of a surrogate pair, written as \\udXXX
    return text


def _kept(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
