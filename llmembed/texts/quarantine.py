"""Rows that can't be used: written aside with file, line and reason, never fatal one by one."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from llmembed.texts.files import filesystem_of, is_remote

ROW_CHARACTERS = 1000
"""A quarantined row's values are kept up to this length each."""


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """``line``: where the row starts in its file, from 1; in Parquet and on the hub the row's
    number, from 1. ``row``: its values as far as they could be read."""

    file: str
    line: int
    reason: str
    row: Any = None


@dataclass(frozen=True, kw_only=True)
class Quarantine:
    """How many rows were set aside, why, and the JSONL file that holds them."""

    count: int
    path: Path
    reasons: Mapping[str, int] = field(default_factory=dict)


class QuarantineWriter:
    """Writes bad rows to one JSONL file: whole on ``close`` or absent. No file without bad rows;
    one left by an earlier reading of the same source is then removed."""

    def __init__(self, address: str | Path) -> None:
        self.address = str(address)
        self.count = 0
        self.reasons: Counter[str] = Counter()
        self._stream: IO[bytes] | Any = None

    @property
    def _aside(self) -> Path:
        return Path(f"{self.address}.{os.getpid()}.tmp")

    def add(self, rows: Iterable[BadRow]) -> None:
        for row in rows:
            if self._stream is None:
                self._stream = self._open()
            record = {"file": row.file, "line": row.line, "reason": row.reason}
            if row.row is not None:
                record["row"] = _shortened(row.row)
            line = json.dumps(record, ensure_ascii=False, default=str) + "\n"
            self._stream.write(line.encode("utf-8", "backslashreplace"))
            self.count += 1
            self.reasons[row.reason] += 1

    def _open(self) -> IO[bytes] | Any:
        if is_remote(self.address):
            filesystem, path = filesystem_of(self.address)
            return filesystem.open_output_stream(path)
        self._aside.parent.mkdir(parents=True, exist_ok=True)
        return self._aside.open("wb")

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            if not is_remote(self.address):
                self._aside.replace(self.address)
            self._stream = None
        elif self.count == 0 and not is_remote(self.address):
            Path(self.address).unlink(missing_ok=True)

    def __enter__(self) -> QuarantineWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _shortened(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str) and len(value) > ROW_CHARACTERS:
        return value[:ROW_CHARACTERS] + "…"
    if isinstance(value, Mapping):
        return {str(key): _shortened(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shortened(item) for item in value[:ROW_CHARACTERS]]
    return value
