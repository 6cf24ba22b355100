"""What NVML says of the GPUs this process may see: their counters, and who computes on them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmembed.metering.device import GpuInUse

SAMPLED_SECONDS = 1.0
"""NVML samples what processes compute a few times a second: in a shorter window one that computed
may be missing from the samples."""


@dataclass(frozen=True, kw_only=True)
class CardReading:
    """``millijoules`` since the driver was loaded, None where not supported; ``processes`` that
    compute on the card, None where NVML doesn't say, empty of a card this process does not use;
    ``microseconds`` since 1970."""

    millijoules: int | None
    processes: frozenset[int] | None
    microseconds: int


class Cards:
    """The visible GPUs by UUID.

    ``nvml`` is the module ``pynvml`` (None: imported; without a driver there are no cards).
    ``visible`` is ``CUDA_VISIBLE_DEVICES``: ordinals or UUIDs, abbreviated ones too; None means
    every GPU. ``process``: the id under which NVML knows this process.
    """

    def __init__(
        self,
        *,
        nvml: Any = None,
        visible: str | None = None,
        in_use: Callable[[], list[GpuInUse]],
        process: int | None = None,
    ) -> None:
        self.nvml = nvml if nvml is not None else _pynvml()
        self.in_use = in_use
        self.process = os.getpid() if process is None else process
        if visible is None:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        self.handles: dict[str, Any] = self._handles(visible) if self.nvml is not None else {}

    def read(self) -> dict[str, CardReading]:
        used = {gpu.uuid for gpu in self.in_use()} if self.handles else set()
        return {
            uuid: CardReading(
                millijoules=self._millijoules(handle),
                processes=self._processes(handle) if uuid in used else frozenset(),
                microseconds=time.time_ns() // 1000,
            )
            for uuid, handle in self.handles.items()
        }

    def alone(self, start: CardReading, end: CardReading) -> bool:
        """Whether one process computed there at both moments, which is this one."""
        if start.processes is None or end.processes is None:
            return False
        return len(end.processes) == 1 and start.processes <= end.processes

    def share(self, uuid: str, start: CardReading, end: CardReading) -> float:
        """This process's part of what the card did from ``start`` to ``end``, which is just now.

        By what each process computed, where NVML has sampled it (``smUtil``) and knows this process
        by its own id (in a container it may not); else an equal part for each process there. 1
        where NVML doesn't say who computes there.
        """
        here = (start.processes or frozenset(), end.processes or frozenset())
        count = max(1, len(here[0]), len(here[1]))
        if self.alone(start, end) or count == 1:
            return 1.0
        busy = self._busy(self.handles[uuid], start.microseconds)
        sampled = end.microseconds - start.microseconds >= SAMPLED_SECONDS * 1e6
        if self.process in here[1] and sum(busy.values()) > 0 and (self.process in busy or sampled):
            return busy.get(self.process, 0) / sum(busy.values())
        return 1 / count

    def _millijoules(self, handle: Any) -> int | None:
        try:
            return int(self.nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        except self.nvml.NVMLError:
            return None  # not supported on this card (before Volta, some virtual GPUs)

    def _processes(self, handle: Any) -> frozenset[int] | None:
        """Empty in a container whose processes the driver can't name: as good as not said."""
        try:
            found = self.nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except self.nvml.NVMLError:
            return None
        return frozenset(int(each.pid) for each in found) or None

    def _busy(self, handle: Any, since: int) -> Mapping[int, int]:
        """Process -> how much it computed since then, in parts that only compare."""
        busy: dict[int, int] = {}
        try:
            samples = self.nvml.nvmlDeviceGetProcessUtilization(handle, since)
        except self.nvml.NVMLError:
            return busy  # no samples since, or not supported
        for sample in samples:
            busy[int(sample.pid)] = busy.get(int(sample.pid), 0) + int(sample.smUtil)
        return busy

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
