"""Real windows on this machine; powercap as real small file trees."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmembed.contract import Usage
from llmembed.errors import ConfigError
from llmembed.metering import METERS, DeclaredCpu, DeclaredGpu, Meter, RaplMeter


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1000))


def test_default_meter_counts_time_tokens_and_cpu_energy():
    with Meter(tokens=7, calls=1) as meter:
        burn(0.1)
        meter.count(tokens=3, prompt_tokens=11, completion_tokens=2, calls=1)
    usage = meter.usage
    assert usage.core_seconds >= 0.1  # another thread may have been at work as well
    assert usage.seconds > 0
    assert (usage.tokens, usage.prompt_tokens, usage.completion_tokens, usage.calls) == (
        10,
        11,
        2,
        2,
    )
    assert usage.energy_joules > 0
    assert meter.usage == usage  # closed: no longer growing


def test_estimate_is_declared_power_times_the_cores_this_process_kept_busy():
    with Meter(meters=[DeclaredCpu(watts=100.0, cores=4)]) as meter:
        started = time.process_time()
        burn(0.2)
        busy = time.process_time() - started
        time.sleep(0.2)  # idle time costs nothing
    joules = meter.usage.estimated_joules["cpu"]
    assert joules == pytest.approx(100 / 4 * busy, rel=0.05)
    assert meter.usage.measured_joules == {}
    assert meter.usage.energy_is_estimated


def test_declared_power_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("LLMEMBED_CPU_WATTS", "64")
    monkeypatch.setenv("LLMEMBED_GPU_WATTS", "700")
    assert DeclaredCpu().watts == 64.0
    assert DeclaredGpu().watts == 700.0
    for bad in ("much", "-3", "0", "nan"):
        monkeypatch.setenv("LLMEMBED_CPU_WATTS", bad)
        with pytest.raises(ConfigError, match="LLMEMBED_CPU_WATTS"):
            DeclaredCpu()


def test_a_window_costs_less_than_a_millisecond():
    with Meter():
        pass  # the devices are found here
    took = []
    for _ in range(50):
        started = time.perf_counter()
        with Meter() as meter:
            pass
        _ = meter.usage
        took.append(time.perf_counter() - started)
    assert sorted(took)[25] < 1e-3


def test_usage_inside_an_open_window_grows():
    with Meter() as meter:
        burn(0.02)
        first = meter.usage
        burn(0.02)
    assert 0 < first.seconds < meter.usage.seconds
    assert first.energy_joules < meter.usage.energy_joules


def test_windows_nest():
    with Meter(tokens=1) as outer:
        burn(0.02)
        with Meter(tokens=2) as inner:
            burn(0.02)
    assert inner.usage.seconds < outer.usage.seconds
    assert (inner.usage.tokens, outer.usage.tokens) == (2, 1)


def test_a_failed_window_is_still_measured():
    meter = Meter()
    with pytest.raises(RuntimeError), meter:
        burn(0.01)
        raise RuntimeError
    assert meter.usage.seconds >= 0.01


def test_meters_table_and_no_heavy_import():
    assert list(METERS) == ["nvml", "nvml_shared", "rapl", "declared_gpu", "declared_cpu"]
    code = (
        "import sys; from llmembed.metering import Meter\n"
        "with Meter() as m: pass\n"
        "m.usage; print(sorted({'torch', 'ray', 'numpy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# RAPL -------------------------------------------------------------------------------------


def powercap(root: Path, counters: dict[str, int], *, limit: int = 1_000_000) -> Path:
    for domain, value in counters.items():
        folder = root / domain
        folder.mkdir(parents=True, exist_ok=True)
        name = "core" if domain.count(":") == 2 else f"package-{domain[-1]}"
        (folder / "name").write_text(name + "\n")
        (folder / "max_energy_range_uj").write_text(f"{limit}\n")
        (folder / "energy_uj").write_text(f"{value}\n")
    return root


def stat(path: Path, busy_seconds: float) -> Path:
    ticks = round(busy_seconds * 100)
    path.write_text(f"cpu  {ticks} 0 0 99999 55 0 0 0 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    return path


def test_rapl_adds_packages_unwraps_and_takes_this_process_share(tmp_path):
    root = powercap(
        tmp_path / "powercap",
        {"intel-rapl:0": 400_000, "intel-rapl:0:0": 5, "intel-rapl:1": 900_000},
    )
    clock = iter([10.0, 13.0])
    meter = RaplMeter(
        powercap=root, stat=stat(tmp_path / "stat", 50.0), process_seconds=lambda: next(clock)
    )
    start = meter.read()
    powercap(root, {"intel-rapl:0": 700_000, "intel-rapl:0:0": 9, "intel-rapl:1": 200_000})
    stat(tmp_path / "stat", 62.0)
    # 0.3 J + (0.2 - 0.9 + 1.0 J wrapped) = 0.6 J; 3 of 12 busy seconds are ours
    assert meter.joules(start, meter.read()) == {"cpu": pytest.approx(0.6 * 3 / 12)}


def test_rapl_share_never_exceeds_the_whole(tmp_path):
    root = powercap(tmp_path / "powercap", {"intel-rapl:0": 0})
    clock = iter([0.0, 5.0])
    meter = RaplMeter(
        powercap=root, stat=stat(tmp_path / "stat", 7.0), process_seconds=lambda: next(clock)
    )
    start = meter.read()
    powercap(root, {"intel-rapl:0": 800_000})
    assert meter.joules(start, meter.read()) == {"cpu": pytest.approx(0.8)}


@pytest.mark.parametrize("broken", ["energy_uj", "max_energy_range_uj"])
def test_rapl_unreadable_package_leaves_the_cpu_to_the_estimate(tmp_path, broken):
    root = powercap(tmp_path / "powercap", {"intel-rapl:0": 1, "intel-rapl:1": 1})
    (root / "intel-rapl:1" / broken).unlink()
    rapl = RaplMeter(powercap=root, stat=stat(tmp_path / "stat", 1.0))
    with Meter(meters=[rapl, DeclaredCpu(watts=8, cores=1)]) as meter:
        burn(0.02)
    assert meter.usage.measured_joules == {}
    assert meter.usage.estimated_joules["cpu"] >= 8 * 0.02


def test_rapl_absent_measures_nothing(tmp_path):
    meter = RaplMeter(powercap=tmp_path / "none", stat=Path("/proc/stat"))
    assert meter.joules(meter.read(), meter.read()) == {}


def test_long_window_survives_several_wraps(tmp_path):
    """A range of 0.1 J wraps every 0.1 ms at the power assumed, so it is read in between."""
    root = powercap(tmp_path / "powercap", {"intel-rapl:0": 0}, limit=100_000_000)
    rapl = RaplMeter(powercap=root, stat=tmp_path / "stat")
    assert rapl.seconds_between_reads == pytest.approx(0.05)
    stat(tmp_path / "stat", 0.0)
    counter = root / "intel-rapl:0" / "energy_uj"
    with Meter(meters=[rapl]) as meter:
        for value in (60_000_000, 20_000_000, 80_000_000, 40_000_000):  # 60+60+60+60 J
            aside = counter.with_name("aside")
            aside.write_text(str(value))
            aside.replace(counter)
            burn(0.2)
    assert meter.usage.measured_joules["cpu"] == pytest.approx(240.0)


def test_usages_of_workers_add_up():
    with Meter(tokens=5, meters=[DeclaredCpu(watts=10, cores=1)]) as one:
        burn(0.01)
    total = one.usage + one.usage
    assert total.tokens == 10
    assert total.estimated_joules["cpu"] == pytest.approx(2 * one.usage.estimated_joules["cpu"])
    assert Usage.from_json(total.to_json()) == total


def test_core_seconds_are_processor_time_of_all_threads():
    with Meter(meters=[]) as meter:
        started = time.process_time()
        burn(0.1)
        busy = time.process_time() - started
        time.sleep(0.2)
    assert busy <= meter.usage.core_seconds < busy + 0.1  # the sleep is not in it
    assert meter.usage.seconds >= 0.3
    twice = (meter.usage + meter.usage).scaled(0.25)
    assert twice.core_seconds == pytest.approx(meter.usage.core_seconds / 2)


def test_a_usage_written_by_an_earlier_version_is_read():
    written = Usage(seconds=3.0, measured_joules={"cpu": 2.0}).to_json()
    del written["core_seconds"]
    assert Usage.from_json(written) == Usage(seconds=3.0, measured_joules={"cpu": 2.0})


def test_laps_leave_nothing_out():
    def meter(tokens: int = 0) -> Meter:
        return Meter(tokens=tokens, meters=[DeclaredCpu(watts=10, cores=1)])

    laps = []
    with meter() as whole, meter(tokens=1) as lapped:
        began, cores = time.perf_counter(), time.process_time()
        for _ in range(3):
            burn(0.02)
            lapped.count(tokens=5)
            time.sleep(0.02)
            laps.append(lapped.lap())
        between, busy = time.perf_counter() - began, time.process_time() - cores
    assert [lap.tokens for lap in laps] == [6, 5, 5]
    assert lapped.usage.tokens == 0
    total = sum([*laps, lapped.usage], Usage())
    assert between <= total.seconds <= whole.usage.seconds
    assert 10 * busy <= total.energy_joules <= whole.usage.energy_joules
    assert all(lap.seconds >= 0.04 for lap in laps)
