"""What work took: seconds, joules by device, tokens -> ``Usage``; and what that costs.

::

    with Meter(tokens=n) as meter:
        work()
    meter.usage                        # seconds, measured and estimated joules, tokens
    PRICES["llmembed-paper"].cost(meter.usage)

``METERS`` are asked in order and the first to know a device answers for it, so a device is
either measured (NVML, RAPL) or estimated (its share of a GPU on which others compute too, declared
power), never both. A new device meter is one file here and one line in ``METERS``; a new price list
is one line in ``PRICES``.
"""

from __future__ import annotations

from llmembed.metering.declared import DeclaredCpu, DeclaredGpu
from llmembed.metering.device import DeviceMeter
from llmembed.metering.meter import Meter
from llmembed.metering.meters import METERS
from llmembed.metering.nvml import NvmlMeter, NvmlShared
from llmembed.metering.prices import PRICES, Prices
from llmembed.metering.rapl import RaplMeter

__all__ = [
    "METERS",
    "PRICES",
    "DeclaredCpu",
    "DeclaredGpu",
    "DeviceMeter",
    "Meter",
    "NvmlMeter",
    "NvmlShared",
    "Prices",
    "RaplMeter",
]
