"""GPU energy from NVML's total-energy counter (millijoules since the driver was loaded).

The counter is the whole card's: two processes computing on one GPU at once are each charged all
of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmembed.metering.device import NO_LIMIT, GpuInUse, gpus_in_use


class NvmlMeter:
    """Measured joules of the GPUs this process may see and has computed on.

    ``nvml`` is the module ``pynvml`` (None: imported; without a driver nothing is measured).
    ``visible`` is ``CUDA_VISIBLE_DEVICES``: ordinals or UUIDs, abbreviated ones too; None means
    every GPU. A GPU whose counter is not supported, or fell back (the driver was loaded anew),
    is left to the next meter.
    """

    measured = True
    seconds_between_reads = NO_LIMIT  # 64 bits of millijoules

    def __init__(
        self,
        *,
        nvml: Any = None,
        visible: str | None = None,
        in_use: Callable[[], list[GpuInUse]] = gpus_in_use,
    ) -> None:
        self.nvml = nvml if nvml is not None else _pynvml()
        self.in_use = in_use
        if visible is None:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        self.handles: dict[str, Any] = self._handles(visible) if self.nvml is not None else {}

    def read(self) -> dict[str, int]:
        """UUID -> millijoules, of the GPUs whose counter can be read."""
        counters = {}
        for uuid, handle in self.handles.items():
            try:
                counters[uuid] = int(self.nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
            except self.nvml.NVMLError:
                continue  # not supported on this card (before Volta, some virtual GPUs)
        return counters

    def joules(self, start: Mapping[str, int], end: Mapping[str, int]) -> Mapping[str, float]:
        taken = {}
        for gpu in self.in_use() if start else []:
            before, after = start.get(gpu.uuid), end.get(gpu.uuid)
            if before is not None and after is not None and after >= before:
                taken[gpu.device] = (after - before) / 1000.0
        return taken

    def _handles(self, visible: str | None) -> dict[str, Any]:
        """UUID -> handle of the visible GPUs."""
        try:
            handles = [
                self.nvml.nvmlDeviceGetHandleByIndex(index)
                for index in range(self.nvml.nvmlDeviceGetCount())
            ]
            uuids = [_text(self.nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        except self.nvml.NVMLError:
            return {}
        kept = range(len(uuids)) if visible is None else visible_gpus(visible, uuids)
        return {uuids[index]: handles[index] for index in kept}


def visible_gpus(visible: str, uuids: Sequence[str]) -> list[int]:
    """Indices into ``uuids`` that a value of ``CUDA_VISIBLE_DEVICES`` names, in its order.

    As CUDA reads it: what follows the first entry that names no GPU is ignored.
    """
    kept: list[int] = []
    for entry in (part.strip() for part in visible.split(",")):
        if entry.isdecimal():
            found = [int(entry)] if int(entry) < len(uuids) else []
        else:
            found = [i for i, uuid in enumerate(uuids) if entry and uuid.startswith(entry)]
        if len(found) != 1:
            break
        kept += found
    return kept


def _text(value: str | bytes) -> str:
    """Old releases of the module answer in bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _pynvml() -> Any:
    """The module, initialised; None where it or the driver is missing."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
