"""The in-process twin of the cluster: same results, no Ray, for tests and a few hundred rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from llmembed.cluster.failures import as_ours
from llmembed.cluster.progress import progress, unit_of
from llmembed.contract import Reader, Stage, Trained, WorkerContext
from llmembed.errors import UnsupportedError
from llmembed.sharding import Sharding

if TYPE_CHECKING:
    import pyarrow as pa


class LocalRuntime:
    """Does all work in this process, one table after another."""

    def __init__(self, files: str | Path) -> None:
        self._files = str(files)

    @property
    def files(self) -> str:
        """Folder or ``s3://`` address under which stores are kept."""
        return self._files

    @property
    def machines(self) -> int:
        """How many it works on."""
        return 1

    def __enter__(self) -> LocalRuntime:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def map_texts(
        self, inputs: pa.Table | Sequence[Reader], stages: Sequence[Stage], *, label: str
    ) -> Iterator[pa.Table]:
        """Rows through ``stages``, in order; see ``contract.Runtime.map_texts``."""
        import pyarrow as pa

        total = inputs.num_rows if isinstance(inputs, pa.Table) else None
        try:
            with progress(label, total, unit_of(inputs)) as advance:
                tables: Iterator[pa.Table] = _tables(inputs)
                for stage in stages:
                    tables = _through(stage, tables)
                for table in tables:
                    advance(table.num_rows)
                    yield table
        except GeneratorExit:
            raise
        except Exception as error:
            raise as_ours(error, label) from error

    def train(
        self,
        worker: Callable[[WorkerContext], None],
        *,
        workers: int = 1,
        name: str = "train",
        sharding: Sharding | None = None,
        listen: Callable[[Mapping[str, float]], None] | None = None,
    ) -> Trained:
        """Run ``worker`` here, as the only worker, without DeepSpeed."""
        if sharding is not None and sharding.workers != "auto":
            workers = sharding.workers
        if workers != 1:
            raise UnsupportedError(
                f"{name} asks for {workers} workers, but this process is one; use a RayRuntime"
            )
        if sharding is not None and sharding.zero not in ("auto", "off"):
            raise UnsupportedError(
                f"{name} asks for ZeRO stage {sharding.zero}, but DeepSpeed runs on a cluster's "
                "workers only; use a RayRuntime, or zero: auto"
            )
        done = train_here(worker, self._files, name, listen)
        return done if sharding is None else replace(done, why="one worker in this process")


def train_here(
    worker: Callable[[WorkerContext], None],
    files: str,
    name: str,
    listen: Callable[[Mapping[str, float]], None] | None = None,
) -> Trained:
    """Run ``worker`` in this process. Folders it reports are copied under ``files``."""
    import shutil

    kept: list[Path] = []
    last: dict[str, float] = {}
    root: Path | None = None

    def report(metrics: Mapping[str, float], folder: Path | None = None) -> None:
        nonlocal root
        last.clear()
        last.update(metrics)
        if listen is not None:
            listen(dict(metrics))
        if folder is not None:
            if root is None:
                place = Path(mkdtemp() if "://" in files else files) / "train"
                place.mkdir(parents=True, exist_ok=True)
                root = Path(mkdtemp(prefix=f"{name}-", dir=place))
            target = root / f"checkpoint-{len(kept)}"
            shutil.copytree(folder, target)
            kept.append(target)

    try:
        worker(WorkerContext(rank=0, world_size=1, report=report))
    except Exception as error:
        raise as_ours(error, name) from error
    return Trained(metrics=last, folder=kept[-1] if kept else None)


def _tables(inputs: Any) -> Iterator[pa.Table]:
    import pyarrow as pa

    if isinstance(inputs, pa.Table):
        # A table's own chunks are kept: who built it chose where to cut.
        for batch in inputs.to_batches():
            yield pa.Table.from_batches([batch])
        return
    for reader in inputs:
        yield from reader()


def _through(stage: Stage, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    work: Callable[[pa.Table], pa.Table] | None = None
    for table in tables:
        work = work or stage.make()
        for start in range(0, table.num_rows, stage.rows):
            yield work(table.slice(start, stage.rows))
