"""Work on the actors of a Ray cluster, by Ray Data."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmembed.cluster.datasets import blocks, build, quiet, staged
from llmembed.cluster.failures import as_ours, error_in, raise_error
from llmembed.cluster.local_runtime import LocalRuntime
from llmembed.cluster.progress import progress, unit_of
from llmembed.cluster.session import Session, connect, disconnect
from llmembed.cluster.sizing import Plan, plan
from llmembed.contract import Reader, Stage, Trained, WorkerContext
from llmembed.errors import ConfigError
from llmembed.sharding import Sharding

if TYPE_CHECKING:
    import pyarrow as pa

    from llmembed.cluster.portions import Portion
    from llmembed.cluster.sharding import Shared
    from llmembed.generation.engine import Engine


class RayRuntime:
    """Sends work to a Ray cluster; starts a local one where there is none.

    ``files``: folder or ``s3://`` address for stores; on several machines it must be one that all
    see. ``address``: see ``session.connect``. ``actors``: how many hold a model, a number or
    (fewest, most); ``threads_per_actor``: on a CPU; ``gpus_per_actor``: may be a fraction.
    ``portion``: keep to that much of the cluster, whose rest others use at the same time; a
    portion without GPUs does what is mapped in this process.
    Ray is started or reached when first needed, and what was started is stopped on leaving.
    """

    def __init__(
        self,
        files: str | Path,
        *,
        address: str | None = None,
        actors: int | tuple[int, int] | Literal["auto"] = "auto",
        threads_per_actor: int | Literal["auto"] = "auto",
        gpus_per_actor: float | Literal["auto"] = "auto",
        portion: Portion | None = None,
    ) -> None:
        self._files = str(files) if "://" in str(files) else str(Path(files).resolve())
        self._address = address
        self._actors = actors
        self._threads = threads_per_actor
        self._gpus = gpus_per_actor
        self._portion = portion
        self._session: Session | None = None

    @property
    def files(self) -> str:
        """Folder or ``s3://`` address under which stores are kept."""
        return self._files

    @property
    def machines(self) -> int:
        """How many the cluster has; connects first."""
        self._session = self._session or connect(self._address)
        return self._session.nodes

    def __enter__(self) -> RayRuntime:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the cluster, if this runtime started it."""
        if self._session is not None:
            disconnect(self._session)
            self._session = None

    def plan(self) -> Plan:
        """How this cluster's resources are shared out; connects first."""
        self._session = self._session or connect(self._address)  # before Ray is imported: see there
        import ray

        if self._portion is not None:
            part = self._portion
            return plan(
                cpus=part.workers * part.cpus,
                cores=part.cores,
                gpus=part.devices.gpus,
                actors=part.workers,
            )
        offered: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return plan(
            cpus=offered.get("CPU", 1.0),
            cores=self._session.cores,
            gpus=offered.get("GPU", 0.0),
            nodes=self._session.nodes,
            actors=self._actors,
            threads_per_actor=self._threads,
            gpus_per_actor=self._gpus,
        )

    def map_texts(
        self, inputs: pa.Table | Sequence[Reader], stages: Sequence[Stage], *, label: str
    ) -> Iterator[pa.Table]:
        """Rows through ``stages`` on actors; see ``contract.Runtime.map_texts``."""
        if self._portion is not None and not self._portion.devices.gpus:
            # Its cores are this process's: further ones would but have to be started.
            yield from LocalRuntime(self._files).map_texts(inputs, stages, label=label)
            return
        yield from self._run(inputs, lambda sizes: staged(inputs, stages, sizes), label)

    def gpus(self) -> float:
        """Of the whole cluster, or of its portion; connects first."""
        import ray

        if self._portion is not None:
            return float(self._portion.devices.gpus)
        self._session = self._session or connect(self._address)
        return float(ray.cluster_resources().get("GPU", 0.0))  # type: ignore[no-untyped-call]

    def lacks_engine(self) -> str | None:
        """See ``generation.engine``."""
        from llmembed.cluster.engine import not_installed

        return not_installed() or (None if self.gpus() >= 1 else "the cluster has no CUDA device")

    def map_engine(self, table: pa.Table, engine: Engine, *, label: str) -> Iterator[pa.Table]:
        """Rows through vLLM on the cluster's GPUs; see ``generation.engine``."""
        from llmembed.cluster.engine import ROWS, processor_of

        def dataset(sizes: Plan) -> Any:
            import ray

            return processor_of(engine, self.gpus())(ray.data.from_arrow(blocks(table, ROWS)))

        yield from self._run(table, dataset, label)

    def _run(
        self, inputs: pa.Table | Sequence[Reader], make: Callable[[Plan], Any], label: str
    ) -> Iterator[pa.Table]:
        """What comes out of the data set that ``make`` builds."""
        import pyarrow as pa

        total = inputs.num_rows if isinstance(inputs, pa.Table) else None
        if total == 0 or (total is None and not len(inputs)):
            return
        # Said of every file with fewer blocks than there are actors. A filter for the while would
        # not do: Ray Data warns from a thread of its own.
        warnings.filterwarnings("ignore", "The minimum number of concurrent actors")
        try:
            sizes = self.plan()
            with quiet(), progress(label, total, unit_of(inputs)) as advance:
                batches = build(inputs, partial(make, sizes)).iter_batches(
                    batch_size=None, batch_format="pyarrow", prefetch_batches=0
                )
                for table in batches:
                    error = error_in(table)
                    if error is not None:
                        raise_error(error, label)
                    if table.num_rows:
                        advance(table.num_rows)
                        yield table
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except Exception as error:
            # Without the cause: Ray's own words are a screenful and are in its log files.
            raise as_ours(error, label) from None

    def train(
        self,
        worker: Callable[[WorkerContext], None],
        *,
        workers: int = 1,
        name: str = "train",
        sharding: Sharding | None = None,
        listen: Callable[[Mapping[str, float]], None] | None = None,
    ) -> Trained:
        """Run ``worker`` on ``workers`` workers of the cluster; see ``contract.Runtime.train``."""
        from llmembed.cluster.sharding import Devices, share
        from llmembed.cluster.train import train

        pool = self.plan().model
        gpus = pool.gpus > 0
        assert self._session is not None
        shared = None
        if sharding is not None:
            part = self._portion
            asked = math.ceil(pool.largest * pool.gpus)
            devices = part.devices if part else Devices.of_cluster(self._session, asked=asked)
            shared = share(sharding, devices)
            workers, gpus = shared.workers, shared.gpus
        if self._portion is not None and workers > self._portion.workers:
            raise ConfigError(
                f"{workers} workers are asked for, but there is room for {self._portion.workers}"
            )
        done = train(
            worker,
            workers=workers,
            name=name,
            files=self._files,
            gpus=gpus,
            # Without GPUs the workers share the cores; a single one may use them all. Beside GPUs
            # they are not counted, yet an offloaded optimiser works on them.
            threads=self._cores_each(gpus, workers) if shared is not None else 1,
            cpus=None if self._portion is None else self._portion.cpus,
            deepspeed=None if shared is None else shared.deepspeed,
            # Of any number of workers; what one ZeRO stage writes another can't read.
            run=_run_of(sharding.run, shared)
            if sharding is not None and shared is not None and sharding.run
            else None,
            listen=listen,
        )
        return done if shared is None else replace(done, why=shared.why)

    def _cores_each(self, gpus: bool, workers: int) -> int | None:
        """Of each worker that trains; it stands on one machine."""
        from llmembed.cluster.portions import nodes_here, whole_cpus

        if gpus:
            return None
        if self._portion is not None:
            return max(1, self._portion.cores // workers)
        assert self._session is not None
        if self._session.nodes > 1:
            return whole_cpus(nodes_here(), workers)
        return max(1, self._session.cores // workers)


def _run_of(digest: str, shared: Shared) -> str:
    """A run's name. Losses of DeepSpeed's stage 0 were seen to differ after going on with another
    number of workers: there that number is part of it, and the training begins anew."""
    stage = "off" if shared.zero is None else str(shared.zero)
    return f"{digest}-{stage}" + (f"x{shared.workers}" if shared.zero == 0 else "")
