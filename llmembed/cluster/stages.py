"""What runs in the actors and tasks of Ray Data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llmembed.cluster.failures import error_in, error_table
from llmembed.cluster.sizing import use_threads
from llmembed.contract import Reader, Stage

if TYPE_CHECKING:
    import pyarrow as pa


class RunReaders:
    """Runs readers where their rows are wanted; a file never passes through the driver."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        self._readers = list(readers)

    def __call__(self, batch: dict[str, Any]) -> Iterator[pa.Table]:
        try:
            for number in batch["reader"]:
                yield from self._readers[int(number)]()
        except Exception as error:
            yield error_table(error)


class StageWorker:
    """One stage in one actor."""

    def __init__(self, stage: Stage, threads: int) -> None:
        use_threads(threads)
        self._stage = stage
        self._failed: pa.Table | None = None
        try:
            self._work = stage.make()
        except Exception as error:
            self._failed = error_table(error)

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        failed = self._failed if self._failed is not None else error_in(table)
        if failed is not None:
            yield failed
            return
        try:
            for start in range(0, table.num_rows, self._stage.rows):
                yield self._work(table.slice(start, self._stage.rows))
        except Exception as error:
            yield error_table(error)
