"""How one model's training is shared out over devices: workers, ZeRO stage, offload, and why.

Per parameter, training with AdamW in bfloat16 holds 2 bytes of weight, 2 of gradient and 12 of
float32 copy and moments (Rajbhandari et al. 2020, section 3.1). Stage 1 shares out the last, stage
2 also the gradients, stage 3 also the weights; offload moves the last to the machines' memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from llmembed.cluster.deepspeed import configuration
from llmembed.errors import ConfigError
from llmembed.sharding import Sharding

if TYPE_CHECKING:
    from llmembed.cluster.session import Session

STATE_SHARE = {False: 0.6, True: 0.75}
"""Of a device's memory, what weights, gradients and optimiser may take; the rest is for buffers,
what the allocator can't reuse, and activations, of which fewer stay where they are computed again
(``Sharding.checkpointed``)."""
GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Devices:
    """``gpus`` of ``gpu_bytes`` each, 0 for none; ``memory_bytes`` of all machines together;
    ``cpus`` that workers may hold, 0 where that is not known."""

    gpus: int
    gpu_bytes: int
    memory_bytes: int
    cpus: int = 0

    @classmethod
    def of_cluster(cls, session: Session, *, asked: int = 0) -> Devices:
        """As the connected cluster says; a GPU is asked for its memory where there is one.
        ``asked``: GPUs that the settings name, for which an autoscaler is to start machines."""
        import ray

        offered: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        size = 0
        if asked or offered.get("GPU", 0):
            size = ray.get(ray.remote(num_gpus=1)(_memory_of_gpu).remote())
        here = int(offered.get("GPU", 0))
        return cls(
            gpus=max(asked, here),
            gpu_bytes=size,
            # Of machines yet to be started nothing is known.
            memory_bytes=int(offered.get("memory", 0)) if asked <= here else 0,
            cpus=int(offered.get("CPU", 0)),
        )


def _memory_of_gpu() -> int:
    import torch

    return int(torch.cuda.get_device_properties(0).total_memory)


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What ``share`` decided. ``deepspeed``: its configuration, None for plain data parallelism.
    ``why``: in a sentence."""

    workers: int
    zero: int | None
    offload: bool
    gpus: bool
    deepspeed: Mapping[str, Any] | None
    why: str


def bytes_per_device(wanted: Sharding, workers: int, zero: int | None, *, offload: bool) -> float:
    """What weights, gradients and optimiser state take of each device."""
    parameters = float(wanted.parameters)
    trained = parameters if wanted.trained is None else float(wanted.trained)
    frozen = wanted.frozen_bits / 8 * (parameters - trained)
    if zero is None:
        # What is trained stays in float32: weights, gradients, their buckets, two moments, and the
        # bfloat16 copies of autocast. What is frozen is read in bfloat16, or quantised.
        return 22.0 * trained + frozen
    weights = (2.0 * trained + frozen) / (workers if zero >= 3 else 1)
    gradients = 2.0 * trained / (workers if zero >= 2 else 1)
    if zero in (1, 2) and not offload:
        gradients += 6.0 * trained / workers  # flat, and in float32 while the optimiser steps
    optimiser = 0.0 if offload else 12.0 * trained / (workers if zero >= 1 else 1)
    if offload and zero >= 3:
        weights = gradients = 0.2 * parameters / workers  # the layer at work and the next
    return weights + gradients + optimiser


def offloaded_bytes(wanted: Sharding, zero: int) -> float:
    """What waits in the memory of all machines together."""
    trained = wanted.parameters if wanted.trained is None else wanted.trained
    if zero < 3:
        return 20.0 * trained  # weights, moments and gradients in float32, gradients in bfloat16
    return 16.0 * trained + 2.0 * (wanted.parameters + trained)


def share(wanted: Sharding, devices: Devices) -> Shared:
    """Fill in what ``wanted`` leaves to ``auto``. Raises ``ConfigError`` where it can't be done."""
    if wanted.zero not in ("auto", "off", 0, 1, 2, 3):
        raise ConfigError(f"zero is {wanted.zero!r}: expected auto, off, 0, 1, 2 or 3")
    if wanted.zero == 3 and wanted.frozen_bits < 16:
        raise ConfigError(
            "zero: 3 shares weights out, which quantised ones can't be: leave it to auto, or set "
            "it to off, 1 or 2"
        )
    workers, why = _workers(wanted, devices)
    if wanted.batch % workers:
        raise ConfigError(
            f"a batch of {wanted.batch} rows can't be shared evenly by {workers} workers: choose a "
            f"batch that is a multiple of {workers}"
        )
    zero, offload, because = _stage(wanted, devices, workers)
    stage = "without DeepSpeed" if zero is None else f"ZeRO {zero}"
    moved = " with offload" if offload else ""
    return Shared(
        workers=workers,
        zero=zero,
        offload=offload,
        gpus=devices.gpus > 0,
        deepspeed=None
        if zero is None
        else configuration(zero, offload=offload, bf16=wanted.bf16, gpus=devices.gpus > 0),
        why=f"{workers} worker{'s' * (workers > 1)} {stage}{moved}: {why}; {because}",
    )


def fewest_workers(wanted: Sharding, devices: Devices) -> int:
    """As many as ``wanted`` says, else the fewest on which the model fits without offload, else
    all that share the batch evenly."""
    if wanted.workers != "auto" or not devices.gpus:
        return _workers(wanted, devices)[0]
    move: bool | Literal["auto"] = False if wanted.offload == "auto" else wanted.offload
    for count in range(1, devices.gpus + 1):
        try:
            return share(replace(wanted, workers=count, offload=move), devices).workers
        except ConfigError:
            continue
    return _workers(wanted, devices)[0]


def _workers(wanted: Sharding, devices: Devices) -> tuple[int, str]:
    if wanted.workers != "auto":
        if wanted.workers < 1:
            raise ConfigError(f"workers is {wanted.workers}: expected at least 1")
        if devices.gpus and wanted.workers > devices.gpus:
            raise ConfigError(
                f"workers is {wanted.workers}, but the cluster has {devices.gpus} "
                f"GPU{'s' * (devices.gpus > 1)}: ask for fewer, or say how many machines are to be "
                "started for, with runtime.actors and runtime.gpus_per_actor=1"
            )
        if not devices.gpus and 0 < devices.cpus < wanted.workers:
            raise ConfigError(
                f"workers is {wanted.workers}, but the cluster has {devices.cpus} "
                f"CPU{'s' * (devices.cpus > 1)} and no GPU: ask for fewer"
            )
        return wanted.workers, f"{wanted.workers} asked for"
    if not devices.gpus:
        return 1, "without GPUs one worker uses all cores"
    fit = next(n for n in range(devices.gpus, 0, -1) if wanted.batch % n == 0)
    return fit, f"{devices.gpus} GPU{'s' * (devices.gpus > 1)} and a batch of {wanted.batch} rows"


def _stage(wanted: Sharding, devices: Devices, workers: int) -> tuple[int | None, bool, str]:
    if wanted.zero == "off":
        if wanted.offload is True:
            raise ConfigError("offload needs DeepSpeed: set zero to 1, 2 or 3, or to auto")
        return None, False, "DeepSpeed switched off"
    if wanted.zero != "auto" and wanted.offload != "auto":
        return _checked(wanted.zero, wanted.offload), wanted.offload, "as set"
    size = f"{wanted.parameters / 1e9:.3g} billion parameters"
    if not devices.gpus:
        zero = None if wanted.zero == "auto" else wanted.zero
        offload = wanted.offload is True
        if offload and zero is None:
            zero = 2
        return _checked(zero, offload), offload, f"{size} in the machine's own memory"
    room = STATE_SHARE[wanted.checkpointed] * devices.gpu_bytes
    every = [None, 1, 2] if wanted.frozen_bits < 16 else [None, 1, 2, 3]
    stages: list[int | None] = every if wanted.zero == "auto" else [wanted.zero]
    moves = [False, True] if wanted.offload == "auto" else [wanted.offload]
    for offload in moves:
        for zero in stages:
            if (offload and not zero) or (workers == 1 and zero == 1 and not offload):
                continue
            need = bytes_per_device(wanted, workers, zero, offload=offload)
            if need <= room:
                if offload:
                    _check_memory(offloaded_bytes(wanted, zero or 0), devices, size)
                return (
                    zero,
                    offload,
                    (
                        f"{size} then take {need / GIB:.3g} of each GPU's "
                        f"{devices.gpu_bytes / GIB:.3g} GiB"
                    ),
                )
    least = bytes_per_device(wanted, workers, stages[-1], offload=moves[-1])
    ways = [] if wanted.frozen_bits < 16 else ["more GPUs", "ZeRO 3 with offload"]
    if wanted.trained is None:
        ways.append("LoRA")
    elif wanted.frozen_bits > 8:
        ways.append("quantise")
    raise ConfigError(
        f"{size} need {least / GIB:.3g} GiB of each of {workers} GPUs, which have "
        f"{devices.gpu_bytes / GIB:.3g}: use {' or '.join([*ways, 'GPUs with more memory'])}"
    )


def _check_memory(need: float, devices: Devices, size: str) -> None:
    if devices.memory_bytes and need > devices.memory_bytes:
        raise ConfigError(
            f"{size} with offload need {need / GIB:.4g} GiB of the machines' memory, of which Ray "
            f"has {devices.memory_bytes / GIB:.4g}: use more machines or GPUs, or LoRA"
        )


def _checked(zero: int | None, offload: bool) -> int | None:
    if offload and not zero:
        raise ConfigError("offload needs ZeRO stage 1, 2 or 3")
    return zero
