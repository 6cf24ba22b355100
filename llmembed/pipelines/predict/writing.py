"""Tables, one after another, as one csv, jsonl or Parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from llmembed.texts.files import filesystem_of, is_remote


def write_whole(tables: Iterator[pa.Table], address: str) -> None:
    """Write ``tables``, all of one schema, at least one, to ``address`` by its ending; on disk
    aside and then renamed, and never half an object in a store."""
    filesystem, path = filesystem_of(address)
    folder, slash, name = path.rpartition("/")
    aside = path if is_remote(address) else f"{folder}{slash}.{name}.aside"
    if folder and not is_remote(address):
        filesystem.create_dir(folder, recursive=True)
    write = {".parquet": _parquet, ".jsonl": _jsonl, ".csv": _csv}[PurePosixPath(name).suffix]
    try:
        with filesystem.open_output_stream(aside) as stream:
            write(tables, stream)
    except BaseException:
        with suppress(OSError):
            filesystem.delete_file(aside)
        raise
    if aside != path:
        filesystem.move(aside, path)


def _parquet(tables: Iterator[pa.Table], stream: Any) -> None:
    first = next(tables)
    with pq.ParquetWriter(stream, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _jsonl(tables: Iterator[pa.Table], stream: Any) -> None:
    for table in tables:
        floats = [f.name for f in table.schema if pa.types.is_float32(f.type)]
        for row in table.to_pylist():
            # A float32 of 0.9 is 0.8999999761581421 in Python; its seventh digit says nothing.
            row.update({name: row[name] and round(row[name], 6) for name in floats})
            line = json.dumps(row, ensure_ascii=False, default=str) + "\n"
            stream.write(line.encode())


def _csv(tables: Iterator[pa.Table], stream: Any) -> None:
    first = _flat(next(tables))
    with pacsv.CSVWriter(stream, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(_flat(table))


def _flat(table: pa.Table) -> pa.Table:
    """csv knows no lists: lists of strings joined by commas, other nested values as JSON."""
    for index, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            strings = pa.types.is_list(field.type) and pa.types.is_string(field.type.value_type)
            words = [
                None
                if value is None
                else ",".join(map(str, value))
                if strings
                else json.dumps(value, ensure_ascii=False, default=str)
                for value in table[field.name].to_pylist()
            ]
            table = table.set_column(index, field.name, pa.array(words, pa.string()))
    return table
