"""CPU energy from RAPL, read through Linux's ``/sys/class/powercap`` (Intel and AMD)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmembed.metering.device import NO_LIMIT

MAX_PACKAGE_WATTS = 1000.0
"""No package takes more: so a counter can't have wrapped twice before the next reading."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One CPU socket: its counter and where that wraps, in microjoules."""

    counter: Path
    range_microjoules: int


@dataclass(frozen=True, kw_only=True)
class RaplReading:
    """``microjoules`` by package, None where a counter can't be read; processor seconds of this
    process; busy processor seconds of the whole machine, None where they can't be read."""

    microjoules: tuple[int, ...] | None
    process_seconds: float
    machine_seconds: float | None


class RaplMeter:
    """Measured joules of all packages, times this process's share of the machine's busy
    processor time: so that two processes on one machine are not both charged all of it.

    Only the package domains count (cores are inside them; ``psys`` holds them again; memory is
    left out, as some machines have no counter for it). Where any package can't be read (mostly:
    readable by root alone) the CPU is left to the next meter.
    """

    measured = True

    def __init__(
        self,
        *,
        powercap: Path = Path("/sys/class/powercap"),
        stat: Path = Path("/proc/stat"),
        process_seconds: Callable[[], float] = time.process_time,
    ) -> None:
        self.stat = stat
        self.process_seconds = process_seconds
        self.packages = _packages(powercap)

    @property
    def seconds_between_reads(self) -> float:
        ranges = [package.range_microjoules for package in self.packages]
        return min(ranges) / 1e6 / MAX_PACKAGE_WATTS / 2 if ranges else NO_LIMIT

    def read(self) -> RaplReading:
        try:
            counters = tuple(int(package.counter.read_bytes()) for package in self.packages)
        except (OSError, ValueError):
            counters = ()
        return RaplReading(
            microjoules=counters or None,
            process_seconds=self.process_seconds(),
            machine_seconds=_busy_seconds(self.stat) if counters else None,
        )

    def joules(self, start: RaplReading, end: RaplReading) -> Mapping[str, float]:
        if start.microjoules is None or end.microjoules is None:
            return {}
        if start.machine_seconds is None or end.machine_seconds is None:
            return {}
        total = 0
        for package, before, after in zip(
            self.packages, start.microjoules, end.microjoules, strict=True
        ):
            wrapped = package.range_microjoules if after < before else 0
            total += after - before + wrapped
        process = end.process_seconds - start.process_seconds
        # The machine's clock ticks in hundredths, so in a short window it may lag the process's.
        machine = max(end.machine_seconds - start.machine_seconds, process)
        return {"cpu": total / 1e6 * (process / machine if machine > 0 else 0.0)}


def _packages(powercap: Path) -> tuple[Package, ...]:
    """The package domains under ``powercap`` (``intel-rapl:0``, not ``intel-rapl:0:1``)."""
    found = []
    # The same domains stand once more under intel-rapl-mmio; only one of the two is counted.
    for domain in sorted(powercap.glob("intel-rapl:*")):
        if domain.name.count(":") != 1:
            continue
        try:
            if not (domain / "name").read_text().startswith("package"):
                continue
            limit = int((domain / "max_energy_range_uj").read_text())
        except (OSError, ValueError):
            return ()
        found.append(Package(counter=domain / "energy_uj", range_microjoules=limit))
    return tuple(found)


def _busy_seconds(stat: Path) -> float | None:
    """Seconds the machine's processors were busy since it started, from ``/proc/stat``."""
    try:
        with stat.open(encoding="ascii") as lines:
            first = lines.readline().split()
        user, nice, system, _idle, _iowait, irq, softirq = (int(field) for field in first[1:8])
    except (OSError, ValueError):
        return None
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
