"""How many trainings at once fit a cluster, and what each may use: plain arithmetic.

A training that waits for workers holds a place itself (its driver), and what it does beside
training holds no more than its workers did. Workers are counted on what all drivers together leave
of a machine, so that whichever training asks first, places for the others stay: none waits for
ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from llmembed.cluster.sharding import Devices
from llmembed.cluster.sizing import MOST_CPU_ACTORS
from llmembed.errors import ConfigError

START_SECONDS = 1800.0
"""How long machines with GPUs may take to be started."""
DRIVER_CPUS = 0.1
"""Held by the process that starts a training and waits for it."""
SHARES = (1.0, 0.5, 0.25)
"""CPUs of a worker without a GPU, where not all workers can have whole ones."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """What one machine offers."""

    cpus: float
    gpus: float


@dataclass(frozen=True, kw_only=True)
class Portion:
    """The part of a cluster that one of several trainings at once keeps to: ``workers`` workers of
    ``cpus`` each, on ``cores`` real cores and ``devices`` (one GPU a worker, or none)."""

    workers: int
    cpus: float
    cores: int
    devices: Devices


def portions(
    nodes: Sequence[Node],
    devices: Devices,
    *,
    cores: int,
    workers: int,
    wanted: int | Literal["auto"],
    most: int,
) -> tuple[int, Portion]:
    """How many trainings of ``workers`` workers each run at once, ``most`` at most, and the portion
    of each. Raises ``ConfigError`` where ``wanted``, or a single one, can't be placed."""
    gpu = devices.gpus > 0
    if wanted != "auto":
        first = wanted
    elif gpu:
        first = devices.gpus // workers
    else:
        first = min(cores // workers, MOST_CPU_ACTORS * len(nodes))
    for count in range(max(1, min(first, most)), 0, -1):
        threads = max(1, cores // (count * workers))
        cpus = _each(nodes, count, workers, threads, gpu=gpu)
        if cpus is not None:
            here = 1 if gpu else 0
            return count, Portion(
                workers=workers,
                cpus=cpus,
                cores=max(1, cores // count),
                devices=replace(
                    devices,
                    gpus=workers * here,
                    memory_bytes=devices.memory_bytes // count,
                ),
            )
        if wanted != "auto":
            fit = _most(nodes, workers, count, gpu=gpu)
            if fit:
                raise ConfigError(
                    f"search.concurrent is {wanted}: {_offered(nodes, gpu=gpu)} hold at most {fit} "
                    f"trial{'s' * (fit > 1)} of {workers} worker{'s' * (workers > 1)} at once"
                )
            break
    raise ConfigError(
        f"a trial wants {workers} workers, more than {_offered(nodes, gpu=gpu)} hold: lower "
        "method.workers"
    )


def whole_cpus(nodes: Sequence[Node], workers: int) -> int:
    """The most whole CPUs that each of ``workers`` workers can hold, one machine's each. Raises
    ``ConfigError`` where not all can hold one."""
    for cpus in range(int(max(node.cpus for node in nodes)), 0, -1):
        if sum(int(node.cpus // cpus) for node in nodes) >= workers:
            return cpus
    raise ConfigError(f"{workers} workers are more than {_offered(nodes, gpu=False)} hold")


def _each(
    nodes: Sequence[Node], count: int, workers: int, threads: int, *, gpu: bool
) -> float | None:
    """The most CPUs that each worker may hold, None where not all can be placed."""
    whole = [float(n) for n in range(1 if gpu else threads, 1, -1)]
    for cpus in (*whole, *SHARES):
        places = 0
        for node in nodes:
            own = int((node.cpus - count * DRIVER_CPUS) / cpus + 1e-9)
            places += max(0, min(own, int(node.gpus)) if gpu else own)
        if places >= count * workers:
            return cpus
    return None


def _most(nodes: Sequence[Node], workers: int, below: int, *, gpu: bool) -> int:
    fits = (n for n in range(below - 1, 0, -1) if _each(nodes, n, workers, 1, gpu=gpu))
    return next(fits, 0)


def _offered(nodes: Sequence[Node], *, gpu: bool) -> str:
    offered = f"{sum(node.cpus for node in nodes):g} CPUs"
    return f"{sum(node.gpus for node in nodes):g} GPUs and {offered}" if gpu else offered


def wait_for_gpus(
    count: int, say: Callable[[str], None], *, seconds: float = START_SECONDS
) -> None:
    """Until the connected cluster has ``count`` GPUs, for which its autoscaler is asked. Raises
    ``ConfigError`` when they are not there after ``seconds``."""
    import ray
    from ray.autoscaler.sdk import request_resources

    def here() -> int:
        offered: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return int(offered.get("GPU", 0))

    if here() >= count:
        return
    say(f"waiting for machines with {count} GPUs, {here()} of which are there")
    request_resources(bundles=[{"GPU": 1.0}] * count)
    until = time.monotonic() + seconds
    while here() < count and time.monotonic() < until:
        time.sleep(1)
    request_resources(bundles=[])  # machines at work stay, idle ones may go as the cluster has it
    if here() < count:
        raise ConfigError(
            f"runtime.actors and runtime.gpus_per_actor ask for {count} GPUs, and after "
            f"{seconds / 60:.0f} minutes the cluster has {here()}"
        )


def nodes_here() -> list[Node]:
    """The machines of the connected cluster."""
    import ray

    told: list[Any] = ray.nodes()  # type: ignore[no-untyped-call]
    offers = [node["Resources"] for node in told if node["Alive"]]
    return [Node(cpus=o.get("CPU", 0.0), gpus=o.get("GPU", 0.0)) for o in offers]
