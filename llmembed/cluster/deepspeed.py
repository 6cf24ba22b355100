"""DeepSpeed's configuration, and what it needs before it is loaded.

``auto`` values are filled in by the Hugging Face ``Trainer`` from its own arguments, so that batch,
accumulation, learning rate and clipping are said in one place.
"""

from __future__ import annotations

import os
import shutil
import time
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmembed.errors import WorkerError


def configuration(zero: int, *, offload: bool, bf16: bool, gpus: bool) -> dict[str, Any]:
    """The configuration of ZeRO stage ``zero``.

    Without GPUs torch's own AdamW also works on offloaded state: DeepSpeed's would first be
    compiled for minutes.
    """
    stage: dict[str, Any] = {
        "stage": zero,
        "overlap_comm": gpus,
        "contiguous_gradients": True,
        "reduce_bucket_size": "auto",
    }
    if zero == 3:
        stage |= {
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    if offload:
        where = {"device": "cpu", "pin_memory": gpus}
        stage["offload_optimizer"] = where
        if zero == 3:
            stage["offload_param"] = where
    found: dict[str, Any] = {
        "zero_optimization": stage,
        "bf16": {"enabled": bf16},
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "steps_per_print": 2**31 - 1,
    }
    if offload and gpus:
        found["optimizer"] = {
            "type": "AdamW",
            "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"},
        }
    elif offload:
        found["zero_force_ds_cpu_optimizer"] = False
    return found


def prepare(*, gpus: bool) -> None:
    """Make DeepSpeed run in this worker, whose process group stands.

    Without GPUs it works over gloo, without the shared-memory kernels that it would compile first
    (about a minute). Accelerate takes a machine without GPUs for a single process unless told
    otherwise, and by its arguments alone it can't be told of DeepSpeed too."""
    if gpus:
        return
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import deepspeed.ops
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    PartialState(cpu=True).distributed_type = DistributedType.DEEPSPEED
    # ZeRO 3 asks how many workers there are before anything else starts it.
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)


def going_on(
    settings: Mapping[str, Any],
    checkpoint: Path,
    *,
    workers: int,
    converts: bool,
    wait: Callable[[], None],
) -> Mapping[str, Any]:
    """``settings``, changed to go on from ``checkpoint`` on ``workers`` workers.

    What ZeRO shared out over another number of workers is written anew beside it as DeepSpeed's
    universal checkpoint, by the worker that ``converts``, once; ``wait`` returns when all have come
    so far. The others watch for its mark meanwhile: of a large model it takes longer than a process
    group waits. Raises ``WorkerError`` where DeepSpeed can't."""
    latest = next(checkpoint.rglob("latest"), None)
    if latest is None:
        return settings
    shared = latest.parent / latest.read_text(encoding="utf-8").strip()
    earlier = len(list(shared.glob("*_optim_states.pt")))
    if earlier in (0, workers):
        return settings
    done, failed = (shared.with_name(f"{shared.name}_universal.{w}") for w in ("done", "failed"))
    if converts:
        failed.unlink(missing_ok=True)
    wait()  # nobody reads the mark of an earlier try
    if converts and not done.is_file():
        try:
            _to_universal(shared)
            done.touch()
        except Exception as error:
            failed.write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
    while not done.is_file():
        if failed.is_file():
            raise WorkerError(
                f"DeepSpeed can't share out the checkpoint of {earlier} workers over {workers} "
                f"({failed.read_text(encoding='utf-8')}): go on with workers: {earlier}"
            )
        time.sleep(0.5)
    wait()
    return {**settings, "checkpoint": {"load_universal": True}}


def _to_universal(shared: Path) -> None:
    from deepspeed.checkpoint import ds_to_universal

    target = shared.with_name(f"{shared.name}_universal")
    shutil.rmtree(target, ignore_errors=True)  # of a worker killed meanwhile
    ds_to_universal.main(
        Namespace(
            input_folder=str(shared),
            output_folder=str(target),
            num_extract_workers=1,  # in this process: it holds a process group
            num_merge_workers=1,
            keep_temp_folder=False,
            strict=True,
            inject_missing_state=True,
        )
    )
