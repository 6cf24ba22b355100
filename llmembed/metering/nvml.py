"""GPU energy from NVML's total-energy counter (millijoules since the driver was loaded).

The counter is the whole card's. It measures a process that computes on the card alone
(``NvmlMeter``); where several do, or NVML does not say, a part of it is an estimate
(``NvmlShared``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmembed.metering.cards import CardReading, Cards
from llmembed.metering.device import NO_LIMIT, GpuInUse, gpus_in_use

Readings = Mapping[str, CardReading]
SECONDS_BETWEEN_SHARES = 5.0
"""The driver keeps samples of what processes computed for some seconds, and neighbours come and
go."""


class NvmlMeter:
    """Measured joules of the GPUs this process may see, has computed on, and has to itself.

    ``nvml``, ``visible`` and ``process`` as in ``Cards``. A GPU on which others compute too, whose
    counter is not supported, or fell back (the driver was loaded anew), is left to the next meter.
    """

    measured = True
    seconds_between_reads = NO_LIMIT  # 64 bits of millijoules

    def __init__(
        self,
        *,
        nvml: Any = None,
        visible: str | None = None,
        in_use: Callable[[], list[GpuInUse]] = gpus_in_use,
        process: int | None = None,
    ) -> None:
        self.cards = Cards(nvml=nvml, visible=visible, in_use=in_use, process=process)

    def read(self) -> dict[str, CardReading]:
        return self.cards.read()

    def joules(self, start: Readings, end: Readings) -> Mapping[str, float]:
        return {
            gpu.device: joules
            for gpu, joules in self._whole(start, end)
            if self.cards.alone(start[gpu.uuid], end[gpu.uuid])
        }

    def _whole(self, start: Readings, end: Readings) -> Iterator[tuple[GpuInUse, float]]:
        """What each card in use took, whoever computed on it."""
        for gpu in self.cards.in_use() if start else []:
            if gpu.uuid not in start or gpu.uuid not in end:
                continue
            before, after = start[gpu.uuid].millijoules, end[gpu.uuid].millijoules
            if before is not None and after is not None and after >= before:
                yield gpu, (after - before) / 1000.0


class NvmlShared(NvmlMeter):
    """An estimate: this process's share (``Cards.share``) of the joules of each GPU it computes on,
    all of them while it is alone there. The shares of all processes on a card add up to what the
    card took."""

    measured = False

    @property
    def seconds_between_reads(self) -> float:  # type: ignore[override]
        return SECONDS_BETWEEN_SHARES if self.cards.handles else NO_LIMIT

    def joules(self, start: Readings, end: Readings) -> Mapping[str, float]:
        return {
            gpu.device: joules * self.cards.share(gpu.uuid, start[gpu.uuid], end[gpu.uuid])
            for gpu, joules in self._whole(start, end)
        }
