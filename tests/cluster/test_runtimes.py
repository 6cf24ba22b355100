"""Both runtimes keep the same promises; Ray is real, and so are the kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from stages_to_run import Counts, Dies, Double, Fails, FailsAt, LongFile, Measure, Slowly

from llmembed.cluster import LocalRuntime, RayRuntime
from llmembed.contract import Runtime, Stage
from llmembed.errors import DataError, LlmembedError, ModelError, UserError, WorkerError


def made(request: pytest.FixtureRequest, tmp_path: Path, actors: int) -> Iterator[Runtime]:
    if request.param == "local":
        yield LocalRuntime(tmp_path)
        return
    request.getfixturevalue("local_ray")
    with RayRuntime(tmp_path, actors=actors) as runtime:
        yield runtime


@pytest.fixture(params=["local", "ray"])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    yield from made(request, tmp_path, actors=2)


@pytest.fixture(params=["local", "ray"])
def small_runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    """With a single actor, where more of them would show nothing: each takes seconds to start."""
    yield from made(request, tmp_path, actors=1)


def numbers(count: int) -> pa.Table:
    return pa.table({"number": pa.array(range(count), pa.int64())})


def test_all_rows_come_back_once_in_tables_no_larger_than_asked(runtime: Runtime) -> None:
    stages = [Stage(make=Double(), rows=32), Stage(make=Double(), rows=7, model=True)]
    tables = list(runtime.map_texts(numbers(100), stages, label="double"))
    got = pa.concat_tables(tables)
    assert sorted(got.column("number").to_pylist()) == [4 * i for i in range(100)]
    assert max(got.column("rows").to_pylist()) == 7


def test_readers_yield_many_tables(runtime: Runtime) -> None:
    readers = [Counts(0, 50, 20), Counts(50, 57, 3), Counts(0, 0, 5)]
    tables = runtime.map_texts(readers, [Stage(make=Double(), rows=16)], label="read")
    got = pa.concat_tables(list(tables))
    assert sorted(got.column("number").to_pylist()) == [2 * i for i in range(57)]
    assert max(got.column("rows").to_pylist()) == 16
    assert list(runtime.map_texts([], [Stage(make=Double(), rows=2)], label="none")) == []
    assert list(runtime.map_texts(numbers(0), [Stage(make=Double(), rows=2)], label="none")) == []


@pytest.mark.parametrize("when", ["made", "working"])
@pytest.mark.parametrize("ours", [True, False])
def test_a_workers_error_is_one_clean_sentence(
    small_runtime: Runtime, when: str, ours: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    stage = Stage(make=Fails(when, ours), rows=4, model=True)
    with pytest.raises(LlmembedError) as caught:
        list(small_runtime.map_texts(numbers(8), [stage], label="embed tiny"))
    if ours:
        assert type(caught.value) is ModelError
        assert str(caught.value) == "the weights are not those of the spec"
    else:
        assert type(caught.value) is WorkerError
        said = str(caught.value)
        assert said == "embed tiny: a worker failed for good: KeyError: 'colour'"
    if isinstance(small_runtime, RayRuntime):
        assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("tables", [1, 4])
def test_a_readers_error_below_good_rows_is_not_lost(small_runtime: Runtime, tables: int) -> None:
    reader = LongFile(tables, fails=True)
    # In a first stage, and handed on by a second.
    stages = [Stage(make=Measure(0.0), rows=1), Stage(make=Slowly(0.0), rows=1, model=True)]
    for some in (stages[:1], stages):
        with pytest.raises(DataError) as caught:
            list(small_runtime.map_texts([reader], some, label="predict"))
        assert str(caught.value) == "row 5 of the file is no text"


def test_a_workers_error_below_good_rows_is_not_lost(small_runtime: Runtime) -> None:
    stages = [Stage(make=FailsAt(6), rows=2), Stage(make=Double(), rows=8, model=True)]
    for some in (stages[:1], stages):
        with pytest.raises(ModelError, match="number 6"):
            list(
                small_runtime.map_texts(
                    numbers(8), [Stage(make=Double(), rows=8), *some], label="fail"
                )
            )


def test_actors_share_one_file_while_it_is_read(tmp_path: Path, local_ray: None) -> None:
    seen_one = tmp_path / "seen one"
    reader = LongFile(32, until=str(seen_one))
    seen: list[int] = []
    actors: set[int] = set()
    with RayRuntime(tmp_path, actors=2) as runtime:
        stage = Stage(make=Measure(0.3), rows=1, model=True)
        for table in runtime.map_texts([reader], [stage], label="predict"):
            seen_one.touch()
            seen += table.column("number").to_pylist()
            actors |= {*table.column("worker").to_pylist()}
            assert {*table.column("texts").to_pylist()} == {200}
            assert table.num_rows <= 2
    assert sorted(seen) == list(range(32))
    assert len(actors) == 2


def test_embeddings_are_the_same_with_and_without_ray(
    tmp_path: Path, tiny_spec: Any, local_ray: None
) -> None:
    from tiny_bert import make_texts

    from llmembed.embeddings import Store, embed

    texts = make_texts(200)
    here = embed(tiny_spec, texts, LocalRuntime(tmp_path / "here"), part_rows=40)
    with RayRuntime(tmp_path / "ray", actors=2) as runtime:
        there = embed(tiny_spec, texts, runtime, part_rows=40)
    assert there.computed == 200
    np.testing.assert_allclose(there.vectors, here.vectors, atol=2e-3, rtol=2e-3)
    assert there.tokens.tolist() == here.tokens.tolist()
    assert there.usage.tokens == here.usage.tokens and there.usage.seconds > 0
    parts = [Store(tmp_path / name, tiny_spec).parts() for name in ("here", "ray")]
    assert len(parts[0]) == len(parts[1]) > 4


def test_ray_data_s_settings_are_left_as_they_were(tmp_path: Path, local_ray: None) -> None:
    from ray.data import DataContext

    before = DataContext.get_current().target_max_block_size
    DataContext.get_current().enable_progress_bars = True
    with RayRuntime(tmp_path, actors=1) as runtime:
        found = runtime.map_texts(numbers(10), [Stage(make=Double(), rows=2)], label="double")
        next(found)
        assert DataContext.get_current().target_max_block_size == before
        assert DataContext.get_current().enable_progress_bars
        found.close()  # given up in the middle
        rest = list(runtime.map_texts(numbers(4), [Stage(make=Double(), rows=4)], label="double"))
    assert sum(table.num_rows for table in rest) == 4


def test_every_row_comes_once_although_an_actor_is_killed(tmp_path: Path, local_ray: None) -> None:
    killed: set[int] = set()
    seen: list[int] = []
    others: set[int] = set()
    with RayRuntime(tmp_path, actors=2) as runtime:
        stage = Stage(make=Slowly(0.1), rows=4, model=True)
        for table in runtime.map_texts(numbers(120), [stage], label="slowly"):
            seen += table.column("number").to_pylist()
            assert not any(table.column("torch").to_pylist()), "loaded where nothing needs it"
            pid = table.column("pid")[0].as_py()
            if not killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            others.add(pid)
    assert sorted(seen) == list(range(120))
    assert others - killed, "nothing was done by another process than the killed one"


@pytest.mark.slow
def test_ray_says_nothing_of_a_small_file_and_of_a_killed_actor(tmp_path: Path) -> None:
    code = (
        "import os, pyarrow as pa\n"
        "from stages_to_run import Double, LongFile, Measure, Slowly\n"
        "from llmembed.cluster import RayRuntime\n"
        "from llmembed.contract import Stage\n"
        f"with RayRuntime({str(tmp_path)!r}, address='local', actors=2) as runtime:\n"
        "    one = Stage(make=Measure(0.1), rows=1, model=True)\n"
        "    print(len(list(runtime.map_texts([LongFile(1)], [one], label='predict'))))\n"
        "    slow = Stage(make=Slowly(0.1), rows=4, model=True)\n"
        "    numbers, killed = pa.table({'number': range(40)}), False\n"
        "    for table in runtime.map_texts(numbers, [slow], label='slowly'):\n"
        "        if not killed: os.kill(table['pid'][0].as_py(), 9)\n"
        "        killed = True\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


@pytest.mark.slow
def test_a_block_that_kills_every_actor_ends_the_work(tmp_path: Path, local_ray: None) -> None:
    with RayRuntime(tmp_path, actors=1) as runtime, pytest.raises(WorkerError, match="deadly"):
        list(
            runtime.map_texts(numbers(8), [Stage(make=Dies(5), rows=4, model=True)], label="deadly")
        )


def test_a_cluster_that_is_not_there_is_a_users_error(tmp_path: Path) -> None:
    code = (
        "from llmembed.cluster import RayRuntime\n"
        "from llmembed.errors import UserError\n"
        f"try: RayRuntime({str(tmp_path)!r}, address='127.0.0.1:1').plan()\n"
        "except UserError as error: print('said:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    assert "said: no Ray cluster can be reached at 127.0.0.1:1" in done.stdout
    assert issubclass(UserError, ValueError)


def test_this_room_loads_neither_ray_nor_torch() -> None:
    code = (
        "import sys, llmembed.cluster, llmembed.embeddings\n"
        "print({'ray', 'torch'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
