"""Joules of pieces of work that run at once: each its share, together the whole."""

from __future__ import annotations

import asyncio
import math
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmembed.contract import Usage
from llmembed.metering import DeclaredCpu, Meter
from serve.model.batching import TokenBatcher
from serve.model.energy import SharedMeter, metered


def burn(cpu_seconds: float) -> int:
    end, count = time.thread_time() + cpu_seconds, 0
    while time.thread_time() < end:
        count += sum(range(1000))
    return count


def test_two_at_once_take_together_what_one_meter_says() -> None:
    shared = SharedMeter([DeclaredCpu()])

    def piece(cpu_seconds: float) -> Usage:
        with shared.piece() as found:
            burn(cpu_seconds)
        return found.usage

    with ThreadPoolExecutor(3) as threads, Meter(meters=[DeclaredCpu()]) as whole:
        parts = list(threads.map(piece, [0.3, 0.1, 0.3]))
    assert sum(p.energy_joules for p in parts) == pytest.approx(whole.usage.energy_joules, rel=0.15)
    assert all(part.energy_joules > 0 for part in parts)
    assert all(part.energy_is_estimated for part in parts)
    cores = sum(part.core_seconds for part in parts)
    assert cores == pytest.approx(whole.usage.core_seconds, rel=0.15)


def test_two_batchers_at_once_take_together_what_one_meter_says() -> None:
    async def main() -> tuple[list[Usage], Usage]:
        def work(items: list[float]) -> list[int]:
            return [burn(item) for item in items]

        both = [TokenBatcher[float, int](work, budget=10, room=10) for _ in range(2)]
        with Meter() as whole:
            done = await asyncio.gather(*(batches.submit(0.3, 1) for batches in both))
        return [found.usage for found in done], whole.usage

    parts, whole = asyncio.run(main())
    assert sum(p.energy_joules for p in parts) == pytest.approx(whole.energy_joules, rel=0.15)


class Company:
    """A card of 2 J a reading: measured while this process is alone there, which it is twice."""

    seconds_between_reads = math.inf

    def __init__(self, *, measured: bool) -> None:
        self.measured, self.readings = measured, 0

    def read(self) -> int:
        self.readings += 1
        return self.readings

    def joules(self, start: int, end: int) -> dict[str, float]:
        return {"gpu:0": 2.0 * (end - start)} if not self.measured or end <= 3 else {}


def test_a_neighbour_that_comes_meanwhile_charges_nothing_twice() -> None:
    shared = SharedMeter([Company(measured=True), Company(measured=False)])
    with shared.piece() as first:  # reading 1
        for _ in range(2):  # readings 2 to 5: after the third the card is shared
            with shared.piece():
                pass
    # 2 J alone, half of the next two, all of those between; the last reading is the sixth
    assert first.usage.measured_joules == {"gpu:0": 2.0 + 1.0}
    assert first.usage.estimated_joules == {"gpu:0": 2.0 + 1.0 + 2.0}


def test_seconds_are_a_pieces_own_and_a_failure_ends_it() -> None:
    shared = SharedMeter()
    with pytest.raises(ValueError, match="thirteen"), shared.piece() as failed:
        raise ValueError("thirteen")
    assert failed.usage.seconds < 0.1
    with shared.piece() as outer:
        with shared.piece() as inner:
            time.sleep(0.1)
        time.sleep(0.1)
    assert 0.1 <= inner.usage.seconds < outer.usage.seconds


def test_what_a_head_takes_is_in_an_answer(everything) -> None:
    seat = everything.server.shelf.seats["fused"]
    work = seat._off_loop(lambda: burn(0.1))
    _, took = asyncio.run_coroutine_threadsafe(work, everything.loop).result(20)
    assert took.usage.energy_joules > 0
    assert took.inference_seconds >= 0.1


def test_metering_a_piece_takes_less_than_a_millisecond() -> None:
    metered(lambda: None)
    took = []
    for _ in range(50):
        began = time.perf_counter()
        metered(lambda: None)
        took.append(time.perf_counter() - began)
    assert sorted(took)[25] < 1e-3
