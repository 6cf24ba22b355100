"""How many actors, and how many cores or GPUs each: plain arithmetic over the resources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmembed.errors import ConfigError

MOST_CPU_ACTORS = 4
"""Actors on a machine without GPUs. One thread each wastes least (MiniLM on two cores took 33
core-seconds with two actors of one thread, 48 with one actor of two), but each actor holds the
whole model in memory."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A pool of actors: from ``smallest`` to ``largest``, each holding ``cpus`` and ``gpus`` of
    the cluster and computing with ``threads`` threads."""

    smallest: int
    largest: int
    cpus: float
    gpus: float
    threads: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``model`` for stages that hold a model, ``plain`` for the other stages, ``reading_cpus``
    for each task that reads inputs."""

    model: Pool
    plain: Pool
    reading_cpus: float


def plan(
    *,
    cpus: float,
    cores: int,
    gpus: float,
    nodes: int = 1,
    actors: int | tuple[int, int] | Literal["auto"] = "auto",
    threads_per_actor: int | Literal["auto"] = "auto",
    gpus_per_actor: float | Literal["auto"] = "auto",
) -> Plan:
    """Share out a cluster that offers ``cpus`` and ``gpus`` on ``cores`` real cores.

    One actor for each GPU where there are any, else one for each core up to ``MOST_CPU_ACTORS`` on
    each of ``nodes`` machines. All model actors together, however many a range lets them become,
    leave at least one CPU, or half of a single one, to the other stages. ``gpus`` may be fewer than
    the actors need where ``actors`` are said: asking is what makes an autoscaler start machines.
    Raises ``ConfigError``.
    """
    gpus_each = (1.0 if gpus else 0.0) if gpus_per_actor == "auto" else float(gpus_per_actor)
    if actors == "auto":
        fit = int(gpus / gpus_each) if gpus_each else min(cores, MOST_CPU_ACTORS * nodes)
        if not fit:
            raise ConfigError(
                f"gpus_per_actor is {gpus_each:g}, but the cluster offers {gpus:g} GPUs now; "
                "say how many actors to ask for, for example actors=(1, 4)"
            )
        smallest = largest = fit
    else:
        smallest, largest = (actors, actors) if isinstance(actors, int) else actors
    if not 1 <= smallest <= largest:
        raise ConfigError(f"actors must be at least 1 and in order, got {actors!r}")
    threads = max(1, cores // largest) if threads_per_actor == "auto" else threads_per_actor
    if threads < 1:
        raise ConfigError(f"threads_per_actor must be at least 1, got {threads_per_actor!r}")
    reserve = min(1.0, cpus / 2)
    wanted = 1.0 if gpus_each else float(threads)
    each = _whole(min(wanted, (cpus - reserve) / largest))
    left = cpus - each * largest
    plain_cpus = min(0.5, left / 2)
    # Tokenising is many times faster than a model on the same core; GPUs need more of it.
    helpers = max(1, int(left / 2)) if gpus_each else max(1, cores // 8)
    return Plan(
        model=Pool(smallest=smallest, largest=largest, cpus=each, gpus=gpus_each, threads=threads),
        plain=Pool(smallest=1, largest=helpers, cpus=plain_cpus, gpus=0.0, threads=1),
        reading_cpus=plain_cpus,
    )


def _whole(cpus: float) -> float:
    """Ray takes fractions only below one."""
    return float(int(cpus)) if cpus >= 1 else cpus


def use_threads(threads: int) -> None:
    """Of a worker's process, before its stage is made. Torch reads the variables when it is loaded,
    which takes seconds: a stage that works without it is spared them."""
    import os
    import sys

    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    # The tokenizer's own threads; one is enough beside the models.
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
