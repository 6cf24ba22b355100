"""GPU counters at NVML's edge, replayed from recordings: alone on a card, and in company."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from itertools import repeat
from types import SimpleNamespace

import pytest

from llmembed.metering import DeclaredGpu, Meter, NvmlMeter, NvmlShared
from llmembed.metering.cards import visible_gpus
from llmembed.metering.device import GpuInUse

A = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
B = "GPU-8932f9aa-0000-4106-c12f-20bd9faed9f6"
ME, OTHER = os.getpid(), 7


class Nvml:
    """Answers as the module does, from recordings: by UUID a card's millijoules (None: not
    supported), and by time the processes that compute on it and what they computed since."""

    class NVMLError(Exception):
        pass

    def __init__(
        self,
        counters: dict[str, list[int | None]],
        *,
        processes: list[list[int] | None] | None = None,
        samples: list[list[tuple[int, int]]] | None = None,
    ) -> None:
        self.uuids = list(counters)
        self.counters = {uuid: iter(values) for uuid, values in counters.items()}
        self.processes = iter(processes) if processes is not None else repeat([ME])
        self.samples = iter(samples or [])

    def nvmlDeviceGetCount(self) -> int:
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(uuid=self.uuids[index])

    def nvmlDeviceGetUUID(self, handle: SimpleNamespace) -> bytes:
        return handle.uuid.encode()

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: SimpleNamespace) -> int:
        value = next(self.counters[handle.uuid])
        if value is None:
            raise self.NVMLError("Not Supported")
        return value

    def nvmlDeviceGetComputeRunningProcesses(self, handle: SimpleNamespace) -> list:
        found = next(self.processes)
        if found is None:
            raise self.NVMLError("Not Supported")
        return [SimpleNamespace(pid=pid, usedGpuMemory=2**30) for pid in found]

    def nvmlDeviceGetProcessUtilization(self, handle: SimpleNamespace, since: int) -> list:
        assert abs(since / 1e6 - time.time()) < 60  # microseconds since 1970
        found = next(self.samples, [])
        if not found:
            raise self.NVMLError("Not Found")
        return [SimpleNamespace(pid=pid, smUtil=util, timeStamp=since + 1) for pid, util in found]


def on(*uuids: str):
    return lambda: [GpuInUse(ordinal=i, uuid=uuid) for i, uuid in enumerate(uuids)]


def test_nvml_counts_millijoules_of_the_gpus_in_use_only():
    nvml = Nvml({A: [5_000_000, 5_123_456], B: [1, 99_999]})
    meter = NvmlMeter(nvml=nvml, visible="0,1", in_use=on(A))
    assert meter.joules(meter.read(), meter.read()) == {"gpu:0": pytest.approx(123.456)}


def test_nvml_ordinal_follows_the_visible_order():
    nvml = Nvml({A: [0, 1000], B: [0, 5000]})
    meter = NvmlMeter(nvml=nvml, visible="1,0", in_use=on(B, A))
    assert meter.joules(meter.read(), meter.read()) == {"gpu:0": 5.0, "gpu:1": 1.0}


def test_gpu_without_a_counter_is_estimated_and_its_neighbour_measured():
    nvml = Nvml({A: [10, 2010], B: [None, None]})
    in_use = on(A, B)
    meters = [
        NvmlMeter(nvml=nvml, visible="0,1", in_use=in_use),
        DeclaredGpu(watts=100.0, in_use=in_use),
    ]
    with Meter(meters=meters) as meter:
        time.sleep(0.05)
    usage = meter.usage
    assert usage.measured_joules == {"gpu:0": 2.0}
    assert usage.estimated_joules["gpu:1"] == pytest.approx(100 * usage.seconds, rel=0.2)
    assert set(usage.estimated_joules) == {"gpu:1"}


@pytest.mark.parametrize("counters", [[10, 2010, None], [10, 2010, 3]])
def test_a_counter_lost_in_mid_window_turns_the_whole_window_into_an_estimate(counters):
    in_use = on(A)
    meters = [
        NvmlMeter(nvml=Nvml({A: counters}), visible="0", in_use=in_use),
        DeclaredGpu(watts=100.0, in_use=in_use),
    ]
    with Meter(meters=meters) as meter:
        time.sleep(0.02)
        assert meter.usage.measured_joules == {"gpu:0": 2.0}
        time.sleep(0.02)
    assert meter.usage.measured_joules == {}
    assert meter.usage.estimated_joules["gpu:0"] == pytest.approx(
        100 * meter.usage.seconds, rel=0.02
    )


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("0,1", [0, 1]),
        ("1", [1]),
        ("", []),
        ("-1", []),
        ("0,-1,1", [0]),
        ("7", []),
        (B, [1]),
        ("GPU-8932f937", [0]),
        ("GPU-8932f9", []),  # fits both
        (f"{B}, {A}", [1, 0]),
    ],
)
def test_visible_gpus_are_read_as_cuda_reads_them(visible, expected):
    assert visible_gpus(visible, [A, B]) == expected


def test_no_driver_measures_nothing():
    class Broken(Nvml):
        def nvmlDeviceGetCount(self) -> int:
            raise self.NVMLError("Uninitialized")

    meter = NvmlMeter(nvml=Broken({A: []}), in_use=on(A))
    assert meter.joules(meter.read(), meter.read()) == {}


# In company -------------------------------------------------------------------------------


def meters_of(counters, processes, samples=None, process=None):
    """Both meters of card A, and the estimate behind them, each with a recording of its own."""
    made = [
        make(
            nvml=Nvml({A: counters}, processes=processes, samples=samples),
            visible="0",
            in_use=on(A),
            process=process,
        )
        for make in (NvmlMeter, NvmlShared)
    ]
    return [*made, DeclaredGpu(watts=1e6, in_use=on(A))]


def usage_of(meters, steps: int = 1):
    with Meter(meters=meters) as meter:
        for _ in range(steps - 1):
            _ = meter.usage
    return meter.usage


def test_alone_on_a_card_is_measured():
    usage = usage_of(meters_of([0, 8000], [[ME], [ME]]))
    assert (usage.measured_joules, usage.estimated_joules) == ({"gpu:0": 8.0}, {})


def test_four_on_a_card_are_each_charged_a_fourth_and_it_is_an_estimate():
    here = [[ME, 11, 12, 13], [ME, 11, 12, 13]]
    usage = usage_of(meters_of([0, 8000], here))
    assert (usage.measured_joules, usage.estimated_joules) == ({}, {"gpu:0": 2.0})


def test_shares_follow_what_each_computed_and_add_up_to_the_card():
    here, samples = [[1, 2, 3], [1, 2, 3]], [[(1, 60), (2, 20)]]
    joules = []
    for process in (1, 2, 3):
        _, shared, _ = meters_of([0, 8000], here, samples, process=process)
        start = shared.read()
        # two seconds on: long enough for the driver to have sampled whoever computes
        reading = replace(start[A], microseconds=start[A].microseconds - 2_000_000)
        joules.append(shared.joules({A: reading}, shared.read())["gpu:0"])
    assert joules == [6.0, 2.0, 0.0]


def test_in_a_window_too_short_to_be_sampled_shares_are_equal():
    here, samples = [[1, 2], [1, 2]], [[(1, 60)]]
    _, shared, _ = meters_of([0, 8000], here, samples, process=2)
    assert shared.joules(shared.read(), shared.read()) == {"gpu:0": 4.0}


def test_a_neighbour_that_comes_later_makes_the_whole_window_an_estimate():
    usage = usage_of(meters_of([0, 4000, 8000], [[ME], [ME], [ME, OTHER]]), steps=2)
    assert usage.measured_joules == {}
    assert usage.estimated_joules == {"gpu:0": 4.0 + 2.0}


@pytest.mark.parametrize("hidden", [None, []])
def test_where_nvml_does_not_say_who_computes_nothing_counts_as_measured(hidden):
    usage = usage_of(meters_of([0, 8000], [hidden, hidden]))
    assert (usage.measured_joules, usage.estimated_joules) == ({}, {"gpu:0": 8.0})


def test_declared_power_of_a_shared_card_is_shared_too():
    nvml = Nvml({A: [None, None]}, processes=[[ME, OTHER], [ME, OTHER]])
    meter = DeclaredGpu(watts=100.0, in_use=on(A), nvml=nvml, visible="0")
    start = meter.read()
    time.sleep(0.02)
    end = meter.read()
    seconds = end.wall_seconds - start.wall_seconds
    assert meter.joules(start, end) == {"gpu:0": pytest.approx(100.0 * seconds / 2)}
