"""Energy as declared power × time, where no counter can be read: always an estimate."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmembed.metering.cards import CardReading, Cards
from llmembed.metering.device import NO_LIMIT, GpuInUse, declared_watts, gpus_in_use

WATTS_PER_CORE = 5.0
"""Estimated power of one busy core: rated power / cores of server CPUs is 4 to 7 W (an EPYC 7763
280 W / 64 cores = 4.4 W, a Xeon 8380 270 W / 40 cores = 6.8 W). Memory, fans and the power supply
are not in it."""

GPU_WATTS = 240.0
"""Estimated power of one GPU at work: what the LLMEmbed paper takes for an A100-40G while it
extracts embeddings (it takes 45 W while it trains heads)."""

CPU_WATTS_VARIABLE = "LLMEMBED_CPU_WATTS"
GPU_WATTS_VARIABLE = "LLMEMBED_GPU_WATTS"


@dataclass(frozen=True, kw_only=True)
class Moment:
    """``wall_seconds`` of a clock that only rises, ``cpu_seconds`` of this process's threads."""

    wall_seconds: float
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class CardsMoment:
    """``wall_seconds`` as in ``Moment``; what NVML said of each card."""

    wall_seconds: float
    cards: Mapping[str, CardReading]


def _now() -> Moment:
    return Moment(wall_seconds=time.perf_counter(), cpu_seconds=time.process_time())


class DeclaredCpu:
    """An estimate: power of one core × seconds of processor time of this process.

    ``watts`` is the power of the whole machine's CPUs with every core busy, by default
    ``LLMEMBED_CPU_WATTS``, else ``WATTS_PER_CORE`` × cores; its share for this process is the
    share of the cores its threads kept busy. Child processes are not in it: they meter themselves.
    """

    measured = False
    seconds_between_reads = NO_LIMIT

    def __init__(self, *, watts: float | None = None, cores: int | None = None) -> None:
        self.cores = cores or os.cpu_count() or 1
        self.watts = watts or declared_watts(CPU_WATTS_VARIABLE) or WATTS_PER_CORE * self.cores

    def read(self) -> Moment:
        return _now()

    def joules(self, start: Moment, end: Moment) -> Mapping[str, float]:
        busy_core_seconds = end.cpu_seconds - start.cpu_seconds
        return {"cpu": self.watts / self.cores * busy_core_seconds}


class DeclaredGpu:
    """An estimate: ``watts`` × wall-clock seconds for each GPU this process works on, its share of
    them where NVML says that others compute there too.

    ``watts`` is one GPU's power, by default ``LLMEMBED_GPU_WATTS``, else ``GPU_WATTS``. ``nvml``,
    ``visible`` and ``process`` as in ``Cards``.
    """

    measured = False
    seconds_between_reads = NO_LIMIT  # ``NvmlShared`` has windows read where there are cards

    def __init__(
        self,
        *,
        watts: float | None = None,
        in_use: Callable[[], list[GpuInUse]] = gpus_in_use,
        nvml: Any = None,
        visible: str | None = None,
        process: int | None = None,
    ) -> None:
        self.watts = watts or declared_watts(GPU_WATTS_VARIABLE) or GPU_WATTS
        self.cards = Cards(nvml=nvml, visible=visible, in_use=in_use, process=process)

    def read(self) -> CardsMoment:
        return CardsMoment(wall_seconds=time.perf_counter(), cards=self.cards.read())

    def joules(self, start: CardsMoment, end: CardsMoment) -> Mapping[str, float]:
        seconds = end.wall_seconds - start.wall_seconds
        taken = {}
        for gpu in self.cards.in_use():
            before, after = start.cards.get(gpu.uuid), end.cards.get(gpu.uuid)
            share = self.cards.share(gpu.uuid, before, after) if before and after else 1.0
            taken[gpu.device] = self.watts * seconds * share
        return taken
