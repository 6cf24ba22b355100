"""Stages and readers that the tests of runtimes send to workers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from llmembed.errors import DataError, ModelError

Work = Callable[[pa.Table], pa.Table]


@dataclass(frozen=True)
class Double:
    """``number`` -> twice it, and how many rows came in one call."""

    def __call__(self) -> Work:
        def work(table: pa.Table) -> pa.Table:
            rows = pa.repeat(table.num_rows, table.num_rows)
            doubled = pc.multiply(table.column("number"), 2)
            return pa.table({"number": doubled, "rows": rows})

        return work


@dataclass(frozen=True)
class Slowly:
    """Rows as they are, with the process that saw them, ``seconds`` a table, and whether it had
    loaded torch."""

    seconds: float

    def __call__(self) -> Work:
        def work(table: pa.Table) -> pa.Table:
            time.sleep(self.seconds)
            table = table.append_column("pid", pa.repeat(os.getpid(), table.num_rows))
            return table.append_column("torch", pa.repeat("torch" in sys.modules, table.num_rows))

        return work


@dataclass(frozen=True)
class Fails:
    """Raises when made or at work: an error of ours, or any other."""

    when: str
    ours: bool

    def _raise(self) -> None:
        if self.ours:
            raise ModelError("the weights are not those of the spec")
        raise KeyError("colour")

    def __call__(self) -> Work:
        if self.when == "made":
            self._raise()

        def work(table: pa.Table) -> pa.Table:
            self._raise()
            return table

        return work


@dataclass(frozen=True)
class FailsAt:
    """Raises at one (doubled) number, after other tables went well."""

    number: int

    def __call__(self) -> Work:
        def work(table: pa.Table) -> pa.Table:
            if self.number in table.column("number").to_pylist():
                raise ModelError(f"number {self.number} is wrong")
            return table

        return work


@dataclass(frozen=True)
class Dies:
    """Kills its own process at one number, each time."""

    number: int

    def __call__(self) -> Work:
        def work(table: pa.Table) -> pa.Table:
            if self.number in table.column("number").to_pylist():
                os.kill(os.getpid(), 9)
            return table

        return work


@dataclass(frozen=True)
class Counts:
    """A reader of the numbers from ``start`` to ``stop``, ``step`` a table."""

    start: int
    stop: int
    step: int

    def __call__(self) -> Iterator[pa.Table]:
        for low in range(self.start, self.stop, self.step):
            numbers = range(low, min(low + self.step, self.stop))
            yield pa.table({"number": pa.array(numbers, pa.int64())})


@dataclass(frozen=True)
class LongFile:
    """A reader of ``tables`` tables of one row, 200 kB each: as a chunk of a file is. In the middle
    it waits for a file at ``until``; in the end it may raise."""

    tables: int
    until: str | None = None
    fails: bool = False

    def __call__(self) -> Iterator[pa.Table]:
        for number in range(self.tables):
            yield pa.table({"number": [number], "texts": [["x" * 1000] * 200]})
            if self.until is not None and number == self.tables // 2:
                self._wait(Path(self.until))
        if self.fails:
            raise DataError("row 5 of the file is no text")

    def _wait(self, until: Path) -> None:
        end = time.monotonic() + 60
        while not until.exists():
            if time.monotonic() > end:
                raise DataError("nothing came of the first half of the file")
            time.sleep(0.05)


@dataclass(frozen=True)
class Measure:
    """Rows of ``LongFile`` -> their numbers, how many texts each holds, and who saw them."""

    seconds: float

    def __call__(self) -> Work:
        def work(table: pa.Table) -> pa.Table:
            time.sleep(self.seconds)
            texts = pc.list_value_length(table.column("texts"))
            pid = pa.repeat(os.getpid(), table.num_rows)
            return pa.table({"number": table.column("number"), "texts": texts, "worker": pid})

        return work
