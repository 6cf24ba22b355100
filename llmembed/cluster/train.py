"""Training on several workers of a cluster, by Ray Train."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from llmembed.cluster.failures import as_ours
from llmembed.cluster.mailbox import listening
from llmembed.cluster.session import cores_here
from llmembed.contract import Trained, WorkerContext
from llmembed.embeddings.folder import Folder
from llmembed.errors import ConfigError

if TYPE_CHECKING:
    from ray.train import Checkpoint

RETRIES = 1
"""How often the workers are started again from the last checkpoint when one was killed."""
KEPT = 2
"""Checkpoints of a run that stay; an older one is deleted when a newer is complete."""


def train(
    worker: Callable[[WorkerContext], None],
    *,
    workers: int,
    name: str,
    files: str,
    gpus: bool,
    threads: int | None = 1,
    cpus: float | None = None,
    deepspeed: Mapping[str, Any] | None = None,
    run: str | None = None,
    listen: Callable[[Mapping[str, float]], None] | None = None,
) -> Trained:
    """Run ``worker`` on ``workers`` workers that share a torch process group (NCCL on GPUs, gloo
    elsewhere).

    Every rank must report folders equally often; what they hold is merged into one checkpoint below
    ``files``/train, of which the last ``KEPT`` stay. ``threads``: of each worker, None for its
    share of the machine's cores; ``cpus``: that each holds of Ray's, by default as many.
    ``deepspeed``: its configuration, handed on. ``run``: goes on
    with what was begun under that name, unless that is still at work. ``listen`` hears what the
    first rank reports. Raises an error of our tree."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    try:
        with _named(name, run, files) as unique, listening(listen) as box:
            path, system = _place(files)
            trainer: Any = TorchTrainer(
                _loop,
                train_loop_config={
                    "worker": worker,
                    "threads": threads,
                    "deepspeed": deepspeed,
                    "gpus": gpus,
                    "box": box,
                    "seen": _left_in(files),
                },
                scaling_config=ScalingConfig(
                    num_workers=workers,
                    use_gpu=gpus,
                    resources_per_worker={
                        "CPU": cpus or threads or 1,
                        **({"GPU": 1} if gpus else {}),
                    },
                ),
                run_config=RunConfig(
                    name=unique,
                    storage_path=path,
                    storage_filesystem=system,
                    failure_config=FailureConfig(max_failures=RETRIES),
                    checkpoint_config=CheckpointConfig(num_to_keep=KEPT),
                ),
            )
            result = trainer.fit()
    except Exception as error:
        raise as_ours(error, name) from None
    metrics = {k: float(v) for k, v in (result.metrics or {}).items()}
    place = Folder(files).child("train", unique).address
    return Trained(metrics=metrics, folder=_local(result.checkpoint), run=place)


def _left_in(files: str) -> str | None:
    """A file by which workers see whether theirs is the same folder; None on s3."""
    if "://" in files:
        return None
    place = Path(files).resolve() / "train"
    place.mkdir(parents=True, exist_ok=True)
    mark = place / ".here"
    mark.touch()
    return str(mark)


def check_shared(mark: str | None) -> None:
    """Said before training, not at its first checkpoint. Raises ``ConfigError``."""
    if mark is not None and not Path(mark).is_file():
        raise ConfigError(
            f"a worker's machine doesn't see {Path(mark).parent.parent}: with several machines "
            "--files must be a folder that all of them share, or an s3:// address"
        )


def _place(files: str) -> tuple[str, Any]:
    """Where runs are kept: a path, and the file system where it is not this machine's. Ray Train
    knows no options in an address, such as an s3 server's own."""
    folder = Folder(files).child("train")
    if folder.local is not None:
        return folder.address, None
    system, path = folder.remote
    return path, system


@contextmanager
def _named(name: str, run: str | None, files: str) -> Iterator[str]:
    """The run's name: Ray Train goes on from the checkpoints it finds under it. Where another
    process of this machine holds it, a new one."""
    fresh = f"{name}-{uuid4().hex[:8]}"
    if run is None or "://" in files:
        yield fresh if run is None else f"{name}-{run}"
        return
    from filelock import FileLock, Timeout

    place = Path(files) / "train"
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / f".{name}-{run}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield fresh
        return
    try:
        yield f"{name}-{run}"
    finally:
        lock.release()


def _loop(config: dict[str, Any]) -> None:
    """What each worker runs: the given function, told who it is."""
    import ray
    import ray.train

    context = ray.train.get_context()
    check_shared(config["seen"])
    resumed = ray.train.get_checkpoint()
    share = max(1, cores_here() // context.get_local_world_size())
    _use_threads(config["threads"] or share)
    with _read(resumed) as here:
        _work(config, context, resumed, here)


@contextmanager
def _read(checkpoint: Checkpoint | None) -> Iterator[Path | None]:
    """The checkpoint's folder; one that is not on this machine is copied here once for all workers
    of the machine, and deleted when the last of them is done."""
    if checkpoint is None:
        yield None
        return
    with checkpoint.as_directory() as folder:
        yield Path(folder)


def _work(
    config: dict[str, Any], context: Any, resumed: Checkpoint | None, here: Path | None
) -> None:
    import ray
    import ray.train

    deepspeed = config["deepspeed"]
    if deepspeed is not None:
        from llmembed.cluster.deepspeed import going_on, prepare

        prepare(gpus=config["gpus"])
        if resumed is not None and here is not None:
            import torch.distributed

            # A folder that all see is converted once, a copy of it once on each machine.
            copied = str(here) != str(resumed.path)
            first = (context.get_local_rank() if copied else context.get_world_rank()) == 0
            deepspeed = going_on(
                deepspeed,
                here,
                workers=context.get_world_size(),
                converts=first,
                wait=torch.distributed.barrier,
            )
    waiting: dict[str, float] = {}

    def report(metrics: Mapping[str, float], folder: Path | None = None) -> None:
        if config["box"] is not None and context.get_world_rank() == 0:
            ray.get(config["box"].put.remote(dict(metrics)))  # heard before it goes on
        waiting.clear()
        if folder is None:
            waiting.update(metrics)  # Ray Train takes about two seconds for each
            return
        checkpoint = ray.train.Checkpoint.from_directory(str(folder))
        ray.train.report(dict(metrics), checkpoint=checkpoint)

    config["worker"](
        WorkerContext(
            rank=context.get_world_rank(),
            world_size=context.get_world_size(),
            report=report,
            resume_from=here,
            deepspeed=deepspeed,
        )
    )
    if waiting:
        ray.train.report(waiting)


def _use_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _local(checkpoint: Checkpoint | None) -> Path | None:
    """The checkpoint's folder; one that is not on this machine is copied here."""
    if checkpoint is None:
        return None
    path = Path(checkpoint.path)
    if path.is_dir():
        return path
    return Path(checkpoint.to_directory(tempfile.mkdtemp(prefix="checkpoint-")))
