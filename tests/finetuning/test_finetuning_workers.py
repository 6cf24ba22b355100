"""Fine-tuning on workers of a real Ray: the same losses on any number of them, with every ZeRO
stage, and after a kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from finetune_to_kill import DiesOnce, StopsAfter
from safetensors.numpy import load_file
from test_contract import TAGS, TOPIC, WORDS, make_examples
from tiny_bert import save_tiny_bert

from llmembed.cluster import LocalRuntime, RayRuntime
from llmembed.contract import Trained
from llmembed.errors import WorkerError
from llmembed.finetuning import FinetuneConfig
from llmembed.finetuning.places import source_of
from llmembed.finetuning.worker import EncoderWork
from llmembed.sharding import Sharding

VARIANT = partial(pytest.param, marks=pytest.mark.variant)
WAYS = [(2, 1), (1, 2)]
"""Workers before and after."""
CONFIG = FinetuneConfig(
    learning_rate=3e-3,
    max_steps=12,
    batch=16,
    micro_batch=4,
    precision="fp32",
    dropout=0.0,
    log_steps=1,
    patience=None,
    keep="last",
)


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> EncoderWork:
    words = {word for known in WORDS.values() for word in known.split()}
    folder = save_tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert", words)
    return EncoderWork(
        source=source_of(str(folder)),
        tasks=(TOPIC, TAGS),
        train=make_examples(64, 0),
        valid=make_examples(20, 1),
        config=CONFIG,
    )


@pytest.fixture(scope="module")
def alone(work, tmp_path_factory) -> Trained:
    return LocalRuntime(tmp_path_factory.mktemp("alone")).train(work)


def sharding(**settings: Any) -> Sharding:
    return Sharding(parameters=20_000, batch=CONFIG.batch, bf16=False, **settings)


def losses(done: Trained) -> np.ndarray:
    assert done.folder is not None
    history = json.loads((done.folder / "progress.json").read_text())["history"]
    steps = [row["step"] for row in history if "train/loss" in row]
    assert steps == [float(step) for step in range(1, CONFIG.max_steps + 1)]
    return np.array([row["train/loss"] for row in history if "train/loss" in row])


def weights(done: Trained) -> dict[str, np.ndarray]:
    assert done.folder is not None
    best = done.folder / "best"
    encoder = load_file(best / "encoder" / "model.safetensors")
    return {**encoder, **load_file(best / "heads.safetensors")}


def check_same(done: Trained, alone: Trained) -> None:
    np.testing.assert_allclose(losses(done), losses(alone), rtol=1e-3)
    ours, theirs = weights(done), weights(alone)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, atol=2e-3, err_msg=name)


@pytest.mark.slow
def test_two_workers_of_which_one_is_killed_give_the_same_losses_and_are_heard(
    work, alone, tmp_path: Path, local_ray
):
    heard: list[dict[str, float]] = []
    fields = {name: getattr(work, name) for name in ("source", "tasks", "train", "valid", "config")}
    dying = DiesOnce(**fields, mark=tmp_path / "died")
    with RayRuntime(tmp_path / "files") as runtime:
        done = runtime.train(
            dying,
            sharding=sharding(workers=2, zero="off"),
            listen=lambda metrics: heard.append(dict(metrics)),
        )
    assert (tmp_path / "died").exists()
    check_same(done, alone)
    assert done.why.startswith("2 workers without DeepSpeed")
    assert {row["step"] for row in heard if "train/loss" in row} == set(range(1, 13))
    assert heard[-1]["joules/worker_0"] > 0
    assert heard[-1]["joules/worker_1"] > 0
    assert {"tokens_per_second", "peak_memory_bytes", "valid/topic/accuracy"} <= heard[-1].keys()


@pytest.mark.slow
def test_what_a_stopped_process_reached_is_not_done_again(work, alone, tmp_path: Path, local_ray):
    heard: list[float] = []
    wanted = sharding(workers=1, zero="off", run=work.digest())
    with RayRuntime(tmp_path) as runtime:
        with pytest.raises(WorkerError, match="the eighth step"):
            runtime.train(StopsAfter(**vars(work), steps=8), name="same", sharding=wanted)
        done = runtime.train(
            work, name="same", sharding=wanted, listen=lambda row: heard.append(row["step"])
        )
    check_same(done, alone)
    assert min(heard) > 4, "began anew"


@pytest.mark.slow
@pytest.mark.variant
@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("zero", [1, 2, 3])
def test_every_zero_stage_gives_the_same_losses_and_a_plain_folder(
    zero, offload, work, alone, tmp_path: Path, local_ray
):
    with RayRuntime(tmp_path) as runtime:
        done = runtime.train(work, sharding=sharding(workers=2, zero=zero, offload=offload))
    assert f"ZeRO {zero}" in done.why
    check_same(done, alone)


@pytest.mark.slow
@pytest.mark.parametrize("zero", [2, 3])
def test_deepspeed_computes_in_bfloat16_without_a_gpu(zero, work, alone, tmp_path: Path, local_ray):
    lower = replace(work, config=replace(CONFIG, precision="bf16"))
    wanted = Sharding(parameters=20_000, batch=CONFIG.batch, bf16=True, workers=2, zero=zero)
    with RayRuntime(tmp_path) as runtime:
        done = runtime.train(lower, sharding=wanted)
    assert not np.array_equal(losses(done), losses(alone))
    np.testing.assert_allclose(losses(done), losses(alone), rtol=0.05)


@pytest.mark.variant
@pytest.mark.slow
def test_killed_under_zero_3_it_goes_on_too(work, alone, tmp_path: Path, local_ray):
    fields = {name: getattr(work, name) for name in ("source", "tasks", "train", "valid", "config")}
    dying = DiesOnce(**fields, mark=tmp_path / "died")
    with RayRuntime(tmp_path / "files") as runtime:
        done = runtime.train(dying, sharding=sharding(workers=2, zero=3, offload=False))
    assert (tmp_path / "died").exists()
    check_same(done, alone)


def killed_then_on(work, place: Path, zero: Any, before: int, after: int) -> Trained:
    """Begun on ``before`` workers by a process that is killed, with all it started, after the
    first checkpoint; gone on with ``after``."""
    told = {
        "source": vars(work.source),
        "mark": str(place / "mark"),
        "workers": before,
        "zero": zero,
        "run": work.digest(),
    }
    (place / "told.json").write_text(json.dumps(told))
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "finetune_program.py"), str(place)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 600
    while not (place / "mark").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "no checkpoint was kept"
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    for each in family:
        with contextlib.suppress(psutil.Error):
            each.kill()
    process.wait()
    heard: list[float] = []
    with RayRuntime(place / "files") as runtime:
        done = runtime.train(
            work,
            name="moved",
            sharding=sharding(
                workers=after,
                zero=zero,
                offload="auto" if zero == "off" else False,
                run=work.digest(),
            ),
            listen=lambda row: heard.append(row["step"]),
        )
    assert min(heard) == 5, "it went on after the fourth step"
    return done


def of_workers(place: Path, zero: int, workers: int, stop: int) -> list[int]:
    """Exit codes of ``workers`` workers over gloo, which go on from what ``place`` keeps."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program = str(Path(__file__).parent / "gloo_worker.py")
    numbers = [[rank, workers, zero, port, stop] for rank in range(workers)]
    started = [
        subprocess.Popen(
            [sys.executable, program, str(place), *map(str, each)],
            stdout=subprocess.DEVNULL,
            stderr=(place / f"{workers}-{each[0]}.log").open("w"),
        )
        for each in numbers
    ]
    return [process.wait() for process in started]


@pytest.mark.timeout(1200)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("zero", "before", "after"),
    [
        (2, 2, 1),
        *(VARIANT(zero, *way) for zero in (1, 2, 3) for way in WAYS if zero != 2 or way != (2, 1)),
    ],
)
def test_what_zero_shared_out_is_shared_out_anew(zero, before, after, work, alone, tmp_path: Path):
    """All killed after the fourth step, gone on by another number; without Ray, which is slow."""
    (tmp_path / "source.json").write_text(json.dumps(vars(work.source)))
    assert of_workers(tmp_path, zero, before, stop=4) == [-signal.SIGKILL] * before
    told = json.loads((tmp_path / "kept" / "progress.json").read_text())
    assert told["latest"]["step"] == 4 and not told["done"]
    logs = {path.name: path.read_text() for path in tmp_path.glob("*.log")}
    assert of_workers(tmp_path, zero, after, stop=0) == [0] * after, logs
    check_same(Trained(metrics={}, folder=tmp_path / "kept"), alone)


@pytest.mark.slow
@pytest.mark.variant
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("before", "after"), WAYS)
@pytest.mark.parametrize("zero", ["off", 2, 3])
def test_on_another_number_of_workers_it_goes_on_with_the_same_losses(
    zero, before, after, work, alone, tmp_path: Path, local_ray
):
    check_same(killed_then_on(work, tmp_path, zero, before, after), alone)


def test_stopping_early_keeps_the_best_on_validation(work, tmp_path: Path):
    # So large a rate that it only gets worse after some step.
    config = replace(
        CONFIG, learning_rate=0.3, max_steps=40, evaluations=4, patience=2, keep="best", warmup=0.0
    )
    done = LocalRuntime(tmp_path).train(replace(work, config=config))
    assert done.folder is not None
    told = json.loads((done.folder / "progress.json").read_text())
    read = [row for row in told["history"] if "valid/score" in row]
    keys = [(row["valid/score"], -row["valid/loss"]) for row in read]
    assert told["best_step"] == read[keys.index(max(keys))]["step"]
    assert read[-1]["step"] < 40, "did not stop early"
