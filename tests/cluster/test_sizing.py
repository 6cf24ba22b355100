"""How a cluster's resources are shared out."""

from __future__ import annotations

from typing import Any

import pytest

from llmembed.cluster.session import cores_here, cores_of
from llmembed.cluster.sizing import plan
from llmembed.errors import ConfigError


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 16, 64])
@pytest.mark.parametrize("gpus", [0, 1, 8])
@pytest.mark.parametrize("actors", ["auto", 1, 2, (1, 3), (2, 40)])
@pytest.mark.parametrize("threads", ["auto", 4])
def test_every_stage_finds_room_on_the_cluster(
    cpus: int, gpus: int, actors: Any, threads: Any
) -> None:
    if gpus and actors != "auto" and gpus < (actors if isinstance(actors, int) else 1):
        pytest.skip("asks for more GPUs than there are, which waits for the autoscaler")
    got = plan(cpus=cpus, cores=cpus, gpus=gpus, actors=actors, threads_per_actor=threads)
    models = got.model.largest * got.model.cpus
    assert models <= cpus - min(1, cpus / 2) + 1e-9
    assert models + got.plain.smallest * got.plain.cpus + got.reading_cpus <= cpus + 1e-9
    assert got.model.cpus > 0 and got.plain.cpus > 0
    assert got.model.cpus < 1 or got.model.cpus == int(got.model.cpus)
    assert got.model.smallest * got.model.gpus <= gpus or actors != "auto"
    if threads == "auto":
        assert got.model.threads * got.model.largest <= max(cpus, got.model.largest)


@pytest.mark.parametrize("actors", [2, (1, 4)])
def test_gpus_that_are_not_up_yet_are_asked_for(actors: Any) -> None:
    got = plan(cpus=2, cores=2, gpus=0, actors=actors, gpus_per_actor=1)
    assert got.model.gpus == 1
    assert got.model.largest == (actors if isinstance(actors, int) else actors[1])
    assert 0 < got.model.cpus * got.model.largest <= 1


def test_the_cores_of_a_cluster_elsewhere_are_not_those_of_this_machine() -> None:
    def node(host: str, cpus: int) -> dict[str, Any]:
        return {"NodeManagerHostname": host, "Resources": {"CPU": float(cpus), "memory": 1.0}}

    many = cores_here() + 30
    assert cores_of([node("here", many)], here="here") == cores_here()
    assert cores_of([node("there", many)], here="here") == many
    assert cores_of([node("here", many), node("there", 2)], here="here") == many + 2
    assert cores_of([], here="here") == 1


def test_one_actor_for_each_gpu_or_core() -> None:
    assert plan(cpus=32, cores=32, gpus=4).model.largest == 4
    assert plan(cpus=32, cores=32, gpus=2, gpus_per_actor=0.5).model.largest == 4
    small = plan(cpus=4, cores=2, gpus=0).model
    assert (small.largest, small.threads) == (2, 1)
    large = plan(cpus=32, cores=32, gpus=0).model
    assert (large.largest, large.threads) == (4, 8)
    assert plan(cpus=32, cores=32, gpus=0, nodes=4).model.largest == 16
    assert plan(cpus=4, cores=2, gpus=0, actors=1).model.threads == 2


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"actors": 0}, "at least 1"),
        ({"actors": (3, 2)}, "in order"),
        ({"threads_per_actor": 0}, "threads_per_actor must be at least 1"),
        ({"gpus_per_actor": 1}, "offers 0 GPUs"),
    ],
)
def test_what_cannot_be_is_said(wrong: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(cpus=4, cores=4, gpus=0, **wrong)
