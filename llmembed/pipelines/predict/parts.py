"""Where the labels of a run gather: one Parquet file a chunk, on disk or in an object store.

A part is complete or absent (renamed into place, in an object store put at once), and its name says
which chunk it is, so a run that was killed goes on with the chunks that have no part.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from llmembed.errors import DataError
from llmembed.texts.files import filesystem_of, is_remote

PART = re.compile(r"part-\d{5,}-\d{6,}\.parquet")
RUN = "_run.json"
"""Says whose labels these are; readers of Parquet folders pass over names like this."""


def part_name(reader: int, chunk: int) -> str:
    """The part of the ``chunk``-th chunk of the ``reader``-th reader."""
    return f"part-{reader:05d}-{chunk:06d}.parquet"


def _order(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in name.removesuffix(".parquet").split("-")[1:])


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of one run. Picklable; ``address`` must mean the same on every machine."""

    address: str

    def __post_init__(self) -> None:
        if not is_remote(self.address):
            object.__setattr__(self, "address", str(Path(self.address).resolve()))

    def names(self) -> list[str]:
        """The finished parts, in the order of the data."""
        return sorted((n for n in self._files() if PART.fullmatch(n)), key=_order)

    def has(self, name: str) -> bool:
        filesystem, path = filesystem_of(self._at(name))
        return bool(filesystem.get_file_info(path).type == pafs.FileType.File)

    def write(self, name: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        put(self._at(name), sink.getvalue())

    def rows(self, name: str) -> int:
        """How many rows a part holds."""
        filesystem, path = filesystem_of(self._at(name))
        with filesystem.open_input_file(path) as file:
            return int(pq.ParquetFile(file).metadata.num_rows)

    def empty(self, name: str, columns: Sequence[str]) -> int:
        """How many rows of a part have an empty label in one of ``columns``."""
        filesystem, path = filesystem_of(self._at(name))
        with filesystem.open_input_file(path) as file:
            table = pq.ParquetFile(file).read(columns=list(columns))
        return sum(any(_empty(label) for label in row.values()) for row in table.to_pylist())

    def tables(self) -> Iterator[pa.Table]:
        """One part after another, all with the first one's schema."""
        schema: pa.Schema | None = None
        for name in self.names():
            filesystem, path = filesystem_of(self._at(name))
            with filesystem.open_input_file(path) as file:
                table = pq.ParquetFile(file).read()
            schema = schema or table.schema
            try:
                yield table.cast(schema)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
                raise DataError(
                    f"the kept columns differ between input files ({error}), "
                    f"so {self.address} can't become one file"
                ) from error

    def run(self) -> dict[str, Any] | None:
        """What ``claim`` noted, or None."""
        if not self.has(RUN):
            return None
        filesystem, path = filesystem_of(self._at(RUN))
        with filesystem.open_input_stream(path) as stream:
            found: dict[str, Any] = json.loads(stream.read())
        return found

    def claim(self, run: Mapping[str, Any]) -> None:
        """Note whose labels these are."""
        if not is_remote(self.address):
            Path(self.address).mkdir(parents=True, exist_ok=True)
        put(self._at(RUN), json.dumps(run, indent=1).encode())

    def others(self) -> list[str]:
        """Files that are not ours."""
        return [
            n for n in self._files() if n != RUN and not n.startswith(".") and not PART.fullmatch(n)
        ]

    def tidy(self) -> None:
        """Remove what killed workers left half written."""
        for name in self._files():
            if name.startswith(".part-"):
                self._delete(name)

    def remove(self) -> None:
        """Remove all, the note last: killed in between, the next run finds whose parts these
        were."""
        names = [name for name in self._files() if name != RUN]
        for name in [*names, RUN]:
            self._delete(name)
        filesystem, path = filesystem_of(self.address)
        filesystem.delete_dir(path)  # an object store may keep an empty folder's name, too

    def _delete(self, name: str) -> None:
        filesystem, path = filesystem_of(self._at(name))
        filesystem.delete_file(path)

    def _files(self) -> list[str]:
        filesystem, path = filesystem_of(self.address)
        found = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
        return [entry.base_name for entry in found]

    def _at(self, name: str) -> str:
        return f"{self.address.rstrip('/')}/{name}"


def _empty(label: Any) -> bool:
    """None; of words, where every one's is."""
    words = isinstance(label, list) and label
    return all(each is None for each in label) if words else label is None


def put(address: str, content: bytes | pa.Buffer) -> None:
    """Write a small file: whole or not at all."""
    filesystem, path = filesystem_of(address)
    if is_remote(address):
        with filesystem.open_output_stream(path) as stream:
            stream.write(content)
        return
    folder, _, name = path.rpartition("/")
    aside = f"{folder}/.{name}.{os.getpid()}"
    with filesystem.open_output_stream(aside) as stream:
        stream.write(content)
    filesystem.move(aside, path)
