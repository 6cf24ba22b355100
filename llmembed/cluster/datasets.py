"""What a runtime asks of Ray Data: rows through stages on pools of actors."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmembed.cluster.sizing import Plan, Pool
from llmembed.cluster.stages import RunReaders, StageWorker
from llmembed.contract import Stage

if TYPE_CHECKING:
    import pyarrow as pa

RETRIES = 3
"""How often a block whose actor was killed is sent again before the work fails: a block that kills
every actor must not do so for ever."""

READ_BYTES = 256 * 2**10
"""What readers yield is sent on as soon as it is this large, so that a file is never held whole and
all actors share it. A few hundred texts are seconds of a model's work on a core, a block costs
milliseconds."""


def build(inputs: Any, make: Callable[[], Any]) -> Any:
    """What ``make`` builds, under our settings of Ray Data."""
    import pyarrow as pa
    from ray.data import DataContext
    from ray.util.annotations import RayDeprecationWarning

    with warnings.catch_warnings():
        # Ray 2.60 warns of its own settings when they are copied, and wants other names for
        # `max_task_retries` but has none yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", RayDeprecationWarning)
        context = DataContext.get_current().copy()
        # Of a table's blocks nothing is joined or cut: one block is one part of a store. Readers
        # stream. Either way what a worker makes of one block is one block.
        context.target_max_block_size = None if isinstance(inputs, pa.Table) else READ_BYTES
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_options.preserve_order = False
        with DataContext.current(context):
            return make()


def staged(inputs: Any, stages: Sequence[Stage], sizes: Plan) -> Any:
    """The data set of ``inputs`` (a table or readers) sent through ``stages``, each on a pool of
    actors as ``sizes`` has it."""
    import pyarrow as pa
    import ray
    from ray.data import ActorPoolStrategy

    if isinstance(inputs, pa.Table):
        dataset: Any = ray.data.from_arrow(blocks(inputs, stages[0].rows))
    else:
        numbers = [{"reader": i} for i in range(len(inputs))]
        read: Any = RunReaders(inputs)
        dataset = ray.data.from_items(numbers, override_num_blocks=len(numbers)).map_batches(
            read, batch_size=None, num_cpus=sizes.reading_cpus
        )
    for stage in stages:
        pool: Pool = sizes.model if stage.model else sizes.plain
        dataset = dataset.map_batches(
            StageWorker,
            fn_constructor_args=(stage, pool.threads),
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ActorPoolStrategy(
                min_size=pool.smallest,
                max_size=pool.largest,
                # One at work, one waiting: more would tie blocks to a busy actor.
                max_tasks_in_flight_per_actor=2,
            ),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus or None,
            max_task_retries=RETRIES,
        )
    return dataset


def blocks(table: pa.Table, rows: int) -> list[pa.Table]:
    """``table`` in tables of at most ``rows`` rows: one is what an actor gets at a time."""
    import pyarrow as pa

    return [pa.Table.from_batches([batch]) for batch in table.to_batches(max_chunksize=rows)]


@contextmanager
def quiet() -> Iterator[None]:
    """Ray Data's messages go to its log files only; ours say what a user needs."""
    import ray.data  # noqa: F401  # sets its handlers up

    handlers = [
        handler
        for name in ("ray", "ray.data")
        for handler in logging.getLogger(name).handlers
        if isinstance(handler, logging.StreamHandler)
        and not isinstance(handler, logging.FileHandler)
    ]
    levels = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)
