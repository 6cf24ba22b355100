"""Training on several workers of a cluster, by Ray Train."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from llmembed.cluster.failures import as_ours
from llmembed.contract import Trained, WorkerContext

if TYPE_CHECKING:
    from ray.train import Checkpoint

RETRIES = 1
"""How often the workers are started again from the last checkpoint when one was killed."""


def train(
    worker: Callable[[WorkerContext], None],
    *,
    workers: int,
    name: str,
    files: str,
    gpus: bool,
    cpus_per_worker: float = 1.0,
) -> Trained:
    """Run ``worker`` on ``workers`` workers that share a torch process group (NCCL on GPUs, gloo
    elsewhere). Every rank must report equally often; what ranks report as folders is merged into
    one checkpoint below ``files``/train. Raises an error of our tree."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer: Any = TorchTrainer(
        _loop,
        train_loop_config={"worker": worker},
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=gpus,
            resources_per_worker={"CPU": cpus_per_worker, **({"GPU": 1} if gpus else {})},
        ),
        run_config=RunConfig(
            name=f"{name}-{uuid4().hex[:8]}",
            storage_path=f"{files.rstrip('/')}/train",
            failure_config=FailureConfig(max_failures=RETRIES),
        ),
    )
    try:
        result = trainer.fit()
    except Exception as error:
        raise as_ours(error, name) from None
    metrics = {k: float(v) for k, v in (result.metrics or {}).items()}
    return Trained(metrics=metrics, folder=_local(result.checkpoint))


def _loop(config: dict[str, Any]) -> None:
    """What each worker runs: the given function, told who it is."""
    import ray.train

    context = ray.train.get_context()
    resumed = ray.train.get_checkpoint()

    def report(metrics: Mapping[str, float], folder: Path | None = None) -> None:
        checkpoint = None if folder is None else ray.train.Checkpoint.from_directory(str(folder))
        ray.train.report(dict(metrics), checkpoint=checkpoint)

    config["worker"](
        WorkerContext(
            rank=context.get_world_rank(),
            world_size=context.get_world_size(),
            report=report,
            resume_from=_local(resumed),
        )
    )


def _local(checkpoint: Checkpoint | None) -> Path | None:
    """The checkpoint's folder; one that is not on this machine is copied here."""
    if checkpoint is None:
        return None
    path = Path(checkpoint.path)
    if path.is_dir():
        return path
    return Path(checkpoint.to_directory(tempfile.mkdtemp(prefix="checkpoint-")))
