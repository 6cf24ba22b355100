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
    return Devices(gpus=gpus, gpu_bytes=size, memory_bytes=1000 * GIB)


@pytest.mark.parametrize(
    ("billions", "gpus", "size", "workers", "zero", "offload"),
    [
        (0.1, 1, A100, 1, None, False),
        (0.1, 8, A100, 8, None, False),
        (7, 8, A100, 8, 1, False),
        (8, 8, A100, 8, 1, False),
        (70, 32, A100, 32, 3, False),
        (70, 16, A100, 16, 3, True),
        (6.74, 1, H200, 1, 2, False),
        (13, 1, H200, 1, 1, True),
    ],
)
def test_auto_takes_the_lowest_stage_that_fits(billions, gpus, size, workers, zero, offload):
    wanted = Sharding(parameters=int(billions * 1e9), batch=32)
    shared = share(wanted, devices(gpus, size))
    assert (shared.workers, shared.zero, shared.offload) == (workers, zero, offload)
    assert f"{billions:g} billion parameters" in shared.why
    assert shared.gpus


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
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    shared = share(
        Sharding(parameters=10**9, batch=8, workers=2, zero=zero, offload=offload), devices(gpus)
    )
    assert shared.deepspeed is not None
    told = {k: v for k, v in shared.deepspeed["zero_optimization"].items() if v != "auto"}
    read = DeepSpeedZeroConfig(**told)
    assert read.stage == zero
    assert (read.offload_optimizer is not None) == offload
    assert (read.offload_param is not None) == (offload and zero == 3)
