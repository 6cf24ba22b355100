"""The measuring window."""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Sequence
from typing import Any

from llmembed.contract import Usage
from llmembed.metering.declared import CPU_WATTS_VARIABLE, GPU_WATTS_VARIABLE
from llmembed.metering.device import DeviceMeter
from llmembed.metering.meters import METERS


class Meter:
    """``with Meter(tokens=n) as meter: …`` then ``meter.usage``; windows may nest.

    Wall-clock and core-seconds, joules of the devices this process works on, and what is counted:
    at the start or, as it becomes known, with ``count``. Work of other processes is not in it: each
    worker meters itself and usages are added. Inside the window ``usage`` is what was taken so
    far. Opening and closing take less than a millisecond once the devices are found.
    """

    def __init__(
        self,
        *,
        tokens: int = 0,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        calls: int = 0,
        meters: Sequence[DeviceMeter] | None = None,
    ) -> None:
        self._counts = Usage(
            tokens=tokens,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            calls=calls,
        )
        self._window = _Window(_devices() if meters is None else meters)

    def count(
        self,
        *,
        tokens: int = 0,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        calls: int = 0,
    ) -> None:
        """Add to what was processed in this window."""
        self._counts += Usage(
            tokens=tokens,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            calls=calls,
        )

    def __enter__(self) -> Meter:
        self._window.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._window.close()

    @property
    def usage(self) -> Usage:
        """Of the whole window, or so far while it is open."""
        return self._counts + self._window.taken()

    def lap(self) -> Usage:
        """What was taken and counted since the window was opened or since the last lap; the window
        goes on from here, so that laps one after another leave nothing out."""
        found, self._counts = self._counts + self._window.taken(anew=True), Usage()
        return found


class _Window:
    """Sums what the devices took between readings; nothing here knows of tokens.

    Where a counter may wrap more than once in a long window, a thread reads it in between. A
    device is charged from the first meter that answered for it in every step, so that no device
    is measured for a while and estimated for the rest.
    """

    def __init__(self, meters: Sequence[DeviceMeter]) -> None:
        self._meters = meters
        self._forget()
        self._readings: list[Any] | None = None
        self._clock = self._cores = 0.0
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def _forget(self) -> None:
        self._seconds = self._core_seconds = 0.0
        self._sums: list[dict[str, float]] = [{} for _ in self._meters]
        self._answers: list[Counter[str]] = [Counter() for _ in self._meters]
        self._steps: Counter[str] = Counter()

    def open(self) -> None:
        assert self._readings is None, "a meter measures one window at a time"
        self._closed = threading.Event()
        self._clock, self._cores = time.perf_counter(), time.process_time()
        self._readings = [meter.read() for meter in self._meters]
        every = min((meter.seconds_between_reads for meter in self._meters), default=math.inf)
        if math.isfinite(every):
            arguments = (weakref.ref(self), self._closed, every)
            threading.Thread(target=_keep_reading, args=arguments, daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._advance()
        with self._lock:
            self._readings = None

    def taken(self, *, anew: bool = False) -> Usage:
        """``anew``: and begin again at nothing."""
        measured: dict[str, float] = {}
        estimated: dict[str, float] = {}
        with self._lock:
            self._step()
            for meter, sums, answers in zip(self._meters, self._sums, self._answers, strict=True):
                for device, joules in sums.items():
                    taken = device in measured or device in estimated
                    if not taken and answers[device] == self._steps[device]:
                        (measured if meter.measured else estimated)[device] = joules
            found = Usage(
                seconds=self._seconds,
                core_seconds=self._core_seconds,
                measured_joules=measured,
                estimated_joules=estimated,
            )
            if anew:
                self._forget()
            return found

    def _advance(self) -> None:
        with self._lock:
            self._step()

    def _step(self) -> None:
        """Add what was taken since the last reading and start from here; the lock is held."""
        if self._readings is None:
            return
        clock, cores = time.perf_counter(), time.process_time()
        readings = [meter.read() for meter in self._meters]
        known = set()
        for i, (start, end) in enumerate(zip(self._readings, readings, strict=True)):
            for device, joules in self._meters[i].joules(start, end).items():
                self._sums[i][device] = self._sums[i].get(device, 0.0) + joules
                self._answers[i][device] += 1
                known.add(device)
        self._steps.update(known)
        self._seconds += clock - self._clock
        self._core_seconds += cores - self._cores
        self._clock, self._cores, self._readings = clock, cores, readings


def _keep_reading(of: weakref.ref[_Window], closed: threading.Event, every: float) -> None:
    """Until the window is closed, or given up while it was open."""
    while not closed.wait(every):
        window = of()
        if window is None:
            return
        window._advance()
        del window


_found: dict[tuple[int, str | None, str | None, str | None], tuple[DeviceMeter, ...]] = {}


def _devices() -> tuple[DeviceMeter, ...]:
    """The meters of ``METERS``, made once for a process and its settings: NVML takes
    milliseconds to start, and a forked process must start its own."""
    variables = ("CUDA_VISIBLE_DEVICES", CPU_WATTS_VARIABLE, GPU_WATTS_VARIABLE)
    cuda, cpu_watts, gpu_watts = (os.environ.get(name) for name in variables)
    key = (os.getpid(), cuda, cpu_watts, gpu_watts)
    if key not in _found:
        _found[key] = tuple(make() for make in METERS.values())
    return _found[key]
