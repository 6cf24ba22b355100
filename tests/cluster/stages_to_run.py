"""Stages and readers that the tests of runtimes send to workers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from llmembed.errors import ModelError

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
    """Rows as they are, with the process that saw them, ``seconds`` a table."""

    seconds: float

    def __call__(self) -> Work:
        def work(table: pa.Table) -> pa.Table:
            time.sleep(self.seconds)
            return table.append_column("pid", pa.repeat(os.getpid(), table.num_rows))

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
