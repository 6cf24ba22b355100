"""Workers, ZeRO stage and offload from a model's size and the devices: arithmetic, and what
DeepSpeed's own configuration class says of the result."""

from __future__ import annotations

import pytest

from llmembed.cluster.sharding import GIB, Devices, share
from llmembed.errors import ConfigError
from llmembed.sharding import Sharding

A100 = 80 * GIB
H200 = 139 * GIB


def devices(gpus: int, size: int = A100) -> Devices:
    return Devices(gpus=gpus, gpu_bytes=size, memory_bytes=2000 * GIB)


@pytest.mark.parametrize(
    ("billions", "gpus", "size", "workers", "zero", "offload"),
    [
        (0.1, 1, A100, 1, None, False),
        (0.1, 8, A100, 8, None, False),
        (7, 8, A100, 8, 1, False),
        (8, 8, A100, 8, 1, False),
        (70, 32, A100, 32, 3, False),
        (70, 16, A100, 16, 3, True),
        (6.74, 1, H200, 1, 3, False),
        (13, 1, H200, 1, 1, True),
    ],
)
def test_auto_takes_the_lowest_stage_that_fits(billions, gpus, size, workers, zero, offload):
    wanted = Sharding(parameters=int(billions * 1e9), batch=32, checkpointed=True)
    shared = share(wanted, devices(gpus, size))
    assert (shared.workers, shared.zero, shared.offload) == (workers, zero, offload)
    assert f"{billions:g} billion parameters" in shared.why
    assert shared.gpus


def test_adapters_alone_need_little_and_offload_needs_room_in_the_machines():
    lora = Sharding(parameters=8 * 10**9, trained=4 * 10**7, batch=8)
    assert share(lora, devices(1, 40 * GIB)).zero is None
    whole = Sharding(parameters=8 * 10**9, batch=8)
    with pytest.raises(ConfigError, match="GiB of the machines' memory"):
        share(whole, Devices(gpus=1, gpu_bytes=60 * GIB, memory_bytes=64 * GIB))


def test_a_quantised_base_takes_a_quarter_and_is_never_shared_out():
    lora = Sharding(parameters=30 * 10**9, trained=10**8, batch=8)
    four = Sharding(parameters=30 * 10**9, trained=10**8, batch=8, frozen_bits=4.13)
    assert share(lora, devices(2, 48 * GIB)).zero == 3
    assert share(four, devices(2, 48 * GIB)).zero is None
    with pytest.raises(ConfigError, match="zero: 3 shares weights out, which quantised ones can't"):
        share(Sharding(parameters=10**9, batch=8, zero=3, frozen_bits=4.13), devices(2))
    with pytest.raises(ConfigError, match=r"need .* GiB of each of 1 GPUs"):
        share(four, devices(1, 16 * GIB))


def test_more_workers_than_cpus_would_wait_for_ever():
    few = Devices(gpus=0, gpu_bytes=0, memory_bytes=GIB, cpus=2)
    assert share(Sharding(parameters=10**7, batch=8, workers=2), few).workers == 2
    with pytest.raises(ConfigError, match="workers is 4, but the cluster has 2 CPUs and no GPU"):
        share(Sharding(parameters=10**7, batch=8, workers=4), few)


def test_without_gpus_one_worker_and_no_deepspeed():
    shared = share(Sharding(parameters=10**7, batch=8), devices(0))
    assert (shared.workers, shared.deepspeed, shared.gpus) == (1, None, False)


def test_workers_are_as_many_as_share_the_batch_evenly():
    assert share(Sharding(parameters=10**8, batch=12), devices(8)).workers == 6


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"workers": 3}, "32 rows can't be shared evenly by 3"),
        ({"workers": 0}, "workers is 0"),
        ({"workers": 16}, "workers is 16, but the cluster has 8 GPUs: ask for fewer"),
        ({"zero": 4}, "zero is 4"),
        ({"zero": "off", "offload": True}, "offload needs DeepSpeed"),
        ({"zero": 0, "offload": True}, "offload needs ZeRO"),
        ({"parameters": 10**12, "zero": 1}, "use more GPUs"),
    ],
)
def test_what_cant_be_is_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        share(Sharding(**{"parameters": 10**9, "batch": 32, **settings}), devices(8))


@pytest.mark.parametrize("gpus", [0, 8])
@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("zero", [1, 2, 3])
def test_deepspeed_takes_the_configuration(zero, offload, gpus):
    shared = share(
        Sharding(parameters=10**9, batch=8, workers=2, zero=zero, offload=offload), devices(gpus)
    )
    read = as_read(shared)
    assert read.zero_optimization_stage == zero
    assert (read.zero_config.offload_optimizer is not None) == offload
    assert (read.zero_config.offload_param is not None) == (offload and zero == 3)
    assert read.bfloat16_config.enabled


READY = {
    # recipe: (billions of parameters, GPUs, bytes each) -> (ZeRO stage, offload)
    "finetune-8b-8xa100": (8.03, 8, A100, 1, False),
    "finetune-70b-32xa100": (70.6, 32, A100, 3, False),
    "finetune-70b-16xa100": (70.6, 16, A100, 3, True),
    "finetune-7b-h200": (6.74, 1, H200, 3, False),
    "finetune-tiny-cpu": (0.003, 0, 0, 2, False),
}


@pytest.mark.parametrize("recipe", READY)
def test_ready_settings_fit_their_machines_and_deepspeed_takes_them(recipe):
    from llmembed.experiment import load_experiment

    billions, gpus, size, zero, offload = READY[recipe]
    (settings,) = load_experiment(recipe).methods.values()
    config = settings.config
    shared = share(
        Sharding(
            parameters=int(billions * 1e9),
            batch=config.batch,
            workers=settings.workers,
            zero=settings.zero,
            offload=settings.offload,
            checkpointed=config.activation_checkpointing,
        ),
        devices(gpus, size),
    )
    assert (shared.zero, shared.offload, shared.gpus) == (zero, offload, gpus > 0)
    assert shared.workers == (gpus or settings.workers)
    micro, accumulated = config.micro(shared.workers)
    read = as_read(shared, micro=micro, accumulated=accumulated)
    assert read.train_batch_size * shared.workers == config.batch


def as_read(shared, micro: int = 1, accumulated: int = 1):
    """The configuration by DeepSpeed's own class, once the Trainer has filled it in."""
    from deepspeed.runtime.config import DeepSpeedConfig

    assert shared.deepspeed is not None
    filled = {
        **shared.deepspeed,
        "train_micro_batch_size_per_gpu": micro,
        "gradient_accumulation_steps": accumulated,
        "train_batch_size": micro * accumulated,  # without a process group it counts one worker
        "gradient_clipping": 1.0,
        "zero_optimization": {
            k: v for k, v in shared.deepspeed["zero_optimization"].items() if v != "auto"
        },
    }
    filled.pop("optimizer", None)

    return DeepSpeedConfig(filled)
