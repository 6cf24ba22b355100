"""How many trainings at once fit: arithmetic, checked against every order in which they ask."""

from __future__ import annotations

import itertools

import pytest

from llmembed.cluster.portions import DRIVER_CPUS, Node, Portion, portions, whole_cpus
from llmembed.cluster.sharding import GIB, Devices, fewest_workers
from llmembed.errors import ConfigError
from llmembed.sharding import Sharding

CPUS = Devices(gpus=0, gpu_bytes=0, memory_bytes=16 * GIB)
A100 = 80 * GIB


def gpus(count: int) -> Devices:
    return Devices(gpus=count, gpu_bytes=A100, memory_bytes=2000 * GIB)


@pytest.mark.parametrize(
    ("nodes", "cores", "workers", "count", "cpus"),
    [
        ([(2, 0)], 2, 1, 2, 0.5),
        ([(2, 0)], 2, 2, 1, 0.5),
        ([(4, 0)], 2, 1, 2, 1.0),
        ([(1, 0)], 1, 1, 1, 0.5),
        ([(8, 0)], 8, 1, 4, 1.0),
        ([(9, 0)], 8, 1, 4, 2.0),
        ([(4, 0), (4, 0)], 8, 2, 4, 0.5),
        ([(2, 0)], 2, 6, 1, 0.25),
    ],
)
def test_without_gpus_cores_are_shared_and_the_drivers_have_room(
    nodes, cores, workers, count, cpus
):
    machines = [Node(cpus=c, gpus=g) for c, g in nodes]
    found, portion = portions(machines, CPUS, cores=cores, workers=workers, wanted="auto", most=100)
    assert (found, portion.workers, portion.cpus) == (count, workers, cpus)
    check_any_order(machines, found, portion)


@pytest.mark.parametrize(
    ("nodes", "workers", "count"),
    [
        ([(16, 8)], 1, 8),
        ([(16, 8)], 3, 2),
        ([(8, 4), (8, 4)], 4, 2),
        ([(8, 4), (8, 4)], 3, 2),
        ([(1, 1)], 1, 1),
        ([(4, 4)], 1, 4),
    ],
)
def test_each_worker_has_a_gpu_of_its_own(nodes, workers, count):
    machines = [Node(cpus=c, gpus=g) for c, g in nodes]
    devices = gpus(sum(g for _, g in nodes))
    found, portion = portions(machines, devices, cores=16, workers=workers, wanted="auto", most=9)
    assert (found, portion.devices.gpus) == (count, workers)
    check_any_order(machines, found, portion)


def check_any_order(nodes: list[Node], count: int, portion: Portion) -> None:
    """Drivers and workers are placed wherever there is room, in a few hundred orders: the last
    finds a place too."""
    gpu = 1 if portion.devices.gpus else 0
    drivers = [(DRIVER_CPUS, 0)] * count
    items = drivers + [(portion.cpus, gpu)] * (count * portion.workers)
    for number, order in enumerate(itertools.permutations(items)):
        free = [[node.cpus, node.gpus] for node in nodes]
        # First or last machine with room, in turn: the fullest and the emptiest packing.
        turn = free if number % 2 else free[::-1]
        for cpus, wanted in order:
            place = next((m for m in turn if m[0] + 1e-9 >= cpus and m[1] >= wanted), None)
            assert place is not None, (nodes, count, portion)
            place[0] -= cpus
            place[1] -= wanted
        if number == 300:
            break


def test_a_workers_cpus_lie_on_one_machine():
    two = [Node(cpus=8, gpus=0), Node(cpus=8, gpus=0)]
    assert [whole_cpus(two, workers) for workers in (1, 2, 3, 16)] == [8, 8, 4, 1]
    uneven = [Node(cpus=4, gpus=0), Node(cpus=12, gpus=0)]
    assert [whole_cpus(uneven, workers) for workers in (1, 2, 4)] == [12, 6, 4]
    with pytest.raises(ConfigError, match="17 workers are more than 16 CPUs hold"):
        whole_cpus(two, 17)


def test_no_more_than_there_is_to_do_and_no_more_than_fits():
    two = [Node(cpus=2, gpus=0)]
    assert portions(two, CPUS, cores=2, workers=1, wanted="auto", most=1)[0] == 1
    assert portions(two, CPUS, cores=2, workers=1, wanted=3, most=9)[0] == 3
    with pytest.raises(ConfigError, match=r"is 40: 2 CPUs hold at most 5 trials of 1 worker"):
        portions(two, CPUS, cores=2, workers=1, wanted=40, most=99)
    with pytest.raises(ConfigError, match=r"a trial wants 20 workers, more than 2 CPUs hold"):
        portions(two, CPUS, cores=2, workers=20, wanted="auto", most=9)
    with pytest.raises(ConfigError, match=r"wants 4 workers, more than 2 GPUs and 8 CPUs hold"):
        portions([Node(cpus=8, gpus=2)], gpus(2), cores=8, workers=4, wanted="auto", most=9)


@pytest.mark.parametrize(
    ("billions", "count", "workers"), [(0.1, 8, 1), (3, 8, 1), (7, 8, 2), (70, 16, 16)]
)
def test_a_trial_takes_the_fewest_gpus_that_hold_its_model(billions, count, workers):
    wanted = Sharding(parameters=int(billions * 1e9), batch=32, checkpointed=True)
    assert fewest_workers(wanted, gpus(count)) == workers
