"""What training side by side saves: ``python benchmarks/tune.py --json FILE``.

The paper's grid (28 configurations, 3 seeds) on a benchmark's MiniLM embeddings, once as separate
Ray Tune trials and once in groups, at equal steps: early stopping off, the same epochs, batch,
learning rate and head. Both go through the trials that ``llmembed tune`` runs, on one Ray, with as
many trials at once as there are cores, one thread each; the two take turns. A run's training time
is the sum of the seconds its trials spent inside their fits (reading views and scalers included)
divided by the trials at once; the rest of its wall-clock time, which is starting processes,
importing torch, and Ray Tune's own work, is reported apart.

Then memory: what a trial's process holds alone and what it shares, with 1, 2 and 4 at once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# This file is called like the package it measures; without its folder the package is found, here
# and in Ray's workers, which get the driver's path.
sys.path[:] = [each for each in sys.path if Path(each).resolve() != Path(__file__).parent.resolve()]

from tune.heads.data import SharedData  # noqa: E402
from tune.heads.fits import CACHE_BYTES, grouped  # noqa: E402
from tune.ledger import Planned, Record  # noqa: E402
from tune.settings import Sweep, load_sweep  # noqa: E402


def shared(sweep: Sweep, folder: Path) -> SharedData:
    """The corpus's embeddings, extracted where they are missing."""
    from llmembed.cluster import LocalRuntime
    from llmembed.methods.frozen.settings import ProbeSettings
    from llmembed.pipelines.corpus import make_corpus
    from llmembed.pipelines.methods import Assembler
    from tune.heads.data import share

    every = {n: ProbeSettings(kind="probe", view=words) for n, words in sweep.views.items()}
    assembler = Assembler(sweep.experiment(every))
    views = {name: assembler.view(words, name) for name, words in sweep.views.items()}
    with LocalRuntime(folder) as runtime:
        corpus = make_corpus(sweep.data, str(folder))
        return share(corpus, views, runtime, (), folder, print)


def run(
    jobs: list[list[Planned]], sweep: Sweep, data: SharedData, folder: Path, concurrent: int
) -> dict[str, Any]:
    """One way of running the grid: wall-clock and training seconds, accuracies by fit."""
    from ray import tune

    from tune.heads.trial import GRACE_EPOCHS, Work, run_trial
    from tune.trials import Trials, run_trials

    records: list[Record] = []
    start = time.perf_counter()
    run_trials(
        jobs,
        Trials(
            trainable=tune.with_parameters(
                run_trial, work=Work(sweep=sweep, data=data, threads=1, by_epoch=False)
            ),
            resources={"cpu": 1.0},
            concurrent=concurrent,
            reuse_actors=True,
            stopping="none",
            longest=1000,
            grace=GRACE_EPOCHS,
        ),
        folder=Path(tempfile.mkdtemp(dir=folder)),
        count=len(jobs),
        on_record=records.append,
        on_tick=lambda running: None,
    )
    wall = time.perf_counter() - start
    inside = sum(record.figures.get("seconds", 0.0) for record in records)
    failed = [record.reason for record in records if record.status != "ok"]
    assert not failed, failed[0]
    return {
        "trials": len(jobs),
        "wall_seconds": wall,
        "training_seconds": inside / concurrent,
        "start_up_seconds": wall - inside / concurrent,
        "accuracy": {r.planned.id: r.figures["valid_accuracy"] for r in records},
    }


def compare(
    sweep: Sweep, data: SharedData, folder: Path, *, repeats: int, concurrent: int
) -> dict[str, Any]:
    """Both ways, taking turns."""
    grid = sweep.make_space(data.shapes).grid()
    planned = [
        Planned(configuration=c, seed=seed) for c in grid for seed in range(sweep.search.seeds)
    ]
    groups = grouped(planned, data, sweep.head_of, most_bytes=CACHE_BYTES)
    ways = {"grouped": groups, "separate": [[each] for each in planned]}
    seen: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, jobs in ways.items():
            seen[name].append(run(jobs, sweep, data, folder, concurrent))
            last = seen[name][-1]
            print(
                f"{name:9} {last['trials']:3} trials: training {last['training_seconds']:7.1f} s, "
                f"start-up and Tune {last['start_up_seconds']:6.1f} s",
                flush=True,
            )
    figures: dict[str, Any] = {"configurations": len(grid), "fits": len(planned)}
    for name, runs in seen.items():
        for what in ("wall_seconds", "training_seconds", "start_up_seconds"):
            figures[f"{what}_{name}"] = statistics.median(each[what] for each in runs)
        figures[f"trials_{name}"] = runs[0]["trials"]
        figures[f"accuracy_{name}"] = statistics.fmean(
            value for each in runs for value in each["accuracy"].values()
        )
    apart = [
        seen["grouped"][0]["accuracy"][each.id] - seen["separate"][0]["accuracy"][each.id]
        for each in planned
    ]
    figures["speedup_grouped_vs_separate"] = (
        figures["training_seconds_separate"] / figures["training_seconds_grouped"]
    )
    figures["speedup_with_start_up"] = (
        figures["wall_seconds_separate"] / figures["wall_seconds_grouped"]
    )
    figures["accuracy_difference"] = statistics.fmean(apart)
    figures["accuracy_difference_standard_error"] = statistics.stdev(apart) / len(apart) ** 0.5
    figures["accuracy_difference_largest"] = max(map(abs, apart))
    return figures


def memory(sweep: Sweep, data: SharedData) -> list[dict[str, Any]]:
    """MiB of processes that train at once: private to each, and shared (the embeddings' file)."""
    import multiprocessing as mp

    import psutil

    context = mp.get_context("spawn")
    rows = []
    for count in (1, 2, 4):
        go, ready = context.Event(), context.Barrier(count + 1)
        workers = [
            context.Process(target=_hold, args=(sweep, data, ready, go)) for _ in range(count)
        ]
        for worker in workers:
            worker.start()
        ready.wait()
        used = [psutil.Process(worker.pid).memory_full_info() for worker in workers]
        go.set()
        for worker in workers:
            worker.join()
        rows.append(
            {
                "trials_at_once": count,
                "private_mib_each": statistics.fmean(u.uss for u in used) / 2**20,
                "resident_mib_each": statistics.fmean(u.rss for u in used) / 2**20,
                "together_mib": sum(u.pss for u in used) / 2**20,
            }
        )
        print(rows[-1], flush=True)
    return rows


def _hold(sweep: Sweep, data: SharedData, ready: Any, go: Any) -> None:
    """One fit, then wait with all it mapped."""
    from tune.heads.fits import fit_alone

    [configuration, *_] = sweep.make_space(data.shapes).grid()
    fit_alone(
        Planned(configuration=configuration, seed=0),
        data,
        {**sweep.head_of(configuration), "epochs": 1},
        threads=1,
    )
    train, valid = data.read(configuration)
    for rows in (*train.values(), *valid.values()):
        rows.sum(dtype="float64")  # every page mapped
    ready.wait()
    go.wait()


def command() -> str:
    """As it was typed, without folders of this machine."""
    words = ["python", "benchmarks/tune.py", *sys.argv[1:]]
    places = [i + 1 for i, word in enumerate(words) if word in ("--store", "--data")]
    return " ".join(word for i, word in enumerate(words) if i not in places and i + 1 not in places)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--data", metavar="DIR", help="local copies of the benchmarks")
    parser.add_argument("--corpus", default="r8")
    parser.add_argument("--limit", type=int, help="no more than so many texts of each part")
    parser.add_argument("--store", type=Path, help="where embeddings are kept between runs")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--widths", type=int, nargs="+", help="default: the ready space's")
    args = parser.parse_args()
    if args.data:
        os.environ["LLMEMBED_DATA_DIR"] = args.data
    import torch

    from llmembed.cluster import connect, disconnect

    changes: dict[str, Any] = {
        "data.source": args.corpus,
        "data.limit": args.limit,
        "head.epochs": args.epochs,
        "head.patience": None,
    }
    if args.widths:
        changes["head.widths"] = args.widths
    sweep = load_sweep("paper-grid", changes=changes)
    with tempfile.TemporaryDirectory() as scratch:
        data = shared(sweep, args.store or Path(scratch))
        session = connect("local")
        try:
            result = compare(
                sweep, data, Path(scratch), repeats=args.repeats, concurrent=session.cores
            )
        finally:
            disconnect(session)
        result["memory"] = memory(sweep, data)
    result = {
        **result,
        "corpus": args.corpus,
        "rows": data.train_rows,
        "array_mib": sum(Path(p).stat().st_size for p in data.arrays.values()) / 2**20,
        "head": {**sweep.head, "epochs": args.epochs},
        "trials_at_once": session.cores,
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "command": command(),
    }
    print(
        f"training: separate {result['training_seconds_separate']:.1f} s, grouped "
        f"{result['training_seconds_grouped']:.1f} s, "
        f"{result['speedup_grouped_vs_separate']:.2f} x "
        f"({result['speedup_with_start_up']:.2f} x with start-up); accuracy differs by "
        f"{result['accuracy_difference']:+.4f} ± "
        f"{result['accuracy_difference_standard_error']:.4f}"
    )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
