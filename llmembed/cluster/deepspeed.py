"""DeepSpeed's configuration, and what it needs before it is loaded.

``auto`` values are filled in by the Hugging Face ``Trainer`` from its own arguments, so that batch,
accumulation, learning rate and clipping are said in one place.
"""

from __future__ import annotations

import os
from typing import Any


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
