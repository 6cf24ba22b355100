"""The meters there are, in the order they are asked."""

from __future__ import annotations

from collections.abc import Callable

from llmembed.metering.declared import DeclaredCpu, DeclaredGpu
from llmembed.metering.device import DeviceMeter
from llmembed.metering.nvml import NvmlMeter, NvmlShared
from llmembed.metering.rapl import RaplMeter

METERS: dict[str, Callable[[], DeviceMeter]] = {
    "nvml": NvmlMeter,
    "nvml_shared": NvmlShared,
    "rapl": RaplMeter,
    "declared_gpu": DeclaredGpu,
    "declared_cpu": DeclaredCpu,
}
"""Name -> what makes the meter, in the order they are asked."""
