"""How fast heads train, and how well: ``python benchmarks/head.py --json FILE``.

First, the fifteen fusions of table 1 at equal optimiser steps, batch, learning rate and head
shape, early stopping off: llmembed's loop against a plain PyTorch loop over a DataLoader (a
TensorDataset of the raw views, shuffled, fusion inside the loop, fp32, AdamW as it comes). The
two alternate, repeated; a fusion's time is the median, everything from arrays to trained
weights, and the speed-up is the ratio of the sums. The head is that of llmembed's recipe (one
hidden layer of 128, dropout 0.5), the batch of 1024 rows is the LLMEmbed authors', the learning
rate of 1e-3 is the recipe's and AdamW's own default. Then the same once with the authors' head
(1024, 256), where the time goes into matrix products that both loops must do.

Then, apart, llmembed's recipe against the authors' settings (Adam at 1e-4, 100 epochs, inputs as
they are, but logits and not softmaxed values into the cross-entropy).
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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmembed.contract import Task
from llmembed.errors import CollapseError
from llmembed.fusion import FUSIONS, build_fusion
from llmembed.heads import HeadConfig
from llmembed.heads.trained import TrainedHead
from llmembed.heads.training import train_head

TABLE_1 = [name for name, spec in FUSIONS.items() if spec.number is not None]
Views = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Views (N, L, D) by name and labels (N,)."""

    views: Views
    labels: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Data:
    task: Task
    train: Part
    valid: Part
    test: Part


def embedded(name: str, limit: int | None, folder: Path) -> Data:
    """MiniLM's views of a benchmark's texts: L = means at depths 1-5, B = pooler, R = cls."""
    from llmembed.backbones import resolve
    from llmembed.cluster import LocalRuntime
    from llmembed.embeddings import embed
    from llmembed.texts import CorpusSource, load_corpus

    corpus = load_corpus(
        CorpusSource.benchmark(name), seed=0, valid_fraction=0.1, quarantine_folder=folder
    )
    spec = resolve("minilm")
    at = {str(read): number for number, read in enumerate(spec.reads)}
    task = corpus.tasks[0]
    parts = []
    assert corpus.test is not None, f"{name} has no test part"
    with LocalRuntime(folder) as runtime:
        for examples in (corpus.train, corpus.valid, corpus.test):
            chosen = examples.select(np.arange(len(examples))[:limit])
            rows = np.asarray(embed(spec, chosen.texts, runtime).vectors, dtype=np.float32)
            means = [at[f"mean:{depth}"] for depth in range(1, 6)]
            views = {"L": means, "B": [at["pooler"]], "R": [at["cls:1"]]}
            parts.append(
                Part(
                    views={name: np.ascontiguousarray(rows[:, at]) for name, at in views.items()},
                    labels=chosen.labels[task.name],
                )
            )
    return Data(task=task, train=parts[0], valid=parts[1], test=parts[2])


def shapes(views: Views) -> dict[str, tuple[int, int]]:
    return {name: (view.shape[1], view.shape[2]) for name, view in views.items()}


def ours(data: Data, fusion: str, config: HeadConfig) -> tuple[float, float | None]:
    """Seconds and test accuracy of llmembed's loop; no accuracy for a fit that collapsed."""
    start = time.perf_counter()
    try:
        head = fitted(data, fusion, config)
    except CollapseError as error:
        print(f"{fusion}: {error}", file=sys.stderr)
        return time.perf_counter() - start, None
    seconds = time.perf_counter() - start
    answers = head.scores(data.test.views)[data.task.name].argmax(1)
    return seconds, float((answers == data.test.labels).mean())


def fitted(data: Data, fusion: str, config: HeadConfig) -> TrainedHead:
    return train_head(
        build_fusion(fusion, shapes(data.train.views)),
        data.train.views,
        {data.task.name: data.train.labels},
        [data.task],
        valid_views=data.valid.views,
        valid_labels={data.task.name: data.valid.labels},
        config=config,
    )


def plain_loop(data: Data, fusion: str, config: HeadConfig) -> tuple[float, float]:
    """Seconds and test accuracy of the loop most people would write."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(config.seed)
    start = time.perf_counter()
    names = list(data.train.views)
    tensors = [torch.from_numpy(data.train.views[name]) for name in names]
    labels = torch.from_numpy(data.train.labels)
    loader = DataLoader(TensorDataset(*tensors, labels), batch_size=config.batch, shuffle=True)
    fuse = build_fusion(fusion, shapes(data.train.views))
    layers: list[nn.Module] = []
    features = fuse.features
    for width in config.widths:
        layers += [nn.Linear(features, width), nn.ReLU(), nn.Dropout(config.dropout)]
        features = width
    head = nn.Sequential(*layers, nn.Linear(features, len(data.task.classes)))
    optimiser = torch.optim.AdamW([*fuse.parameters(), *head.parameters()], lr=config.learning_rate)
    loss_of = nn.CrossEntropyLoss()
    for _ in range(config.epochs):
        for batch in loader:
            loss = loss_of(head(fuse(dict(zip(names, batch[:-1], strict=True)))), batch[-1])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    seconds = time.perf_counter() - start
    fuse.eval()
    head.eval()
    with torch.no_grad():
        views = {name: torch.from_numpy(view) for name, view in data.test.views.items()}
        answers = head(fuse(views)).argmax(1).numpy()
    return seconds, float((answers == data.test.labels).mean())


def equal_steps(data: Data, config: HeadConfig, repeats: int) -> dict[str, Any]:
    """Both loops over every fusion, taking turns."""
    runners = {"ours": ours, "loop": plain_loop}
    for run in runners.values():  # first calls load kernels and libraries
        run(data, "last", HeadConfig.from_json({**config.to_json(), "epochs": 1}))
    rows = []
    for fusion in TABLE_1:
        seen: dict[str, list[tuple[float, float | None]]] = {name: [] for name in runners}
        for repeat in range(repeats):
            seeded = HeadConfig.from_json({**config.to_json(), "seed": repeat})
            for name, run in runners.items():
                seen[name].append(run(data, fusion, seeded))
        row: dict[str, Any] = {"fusion": fusion, "number": FUSIONS[fusion].number}
        for name, results in seen.items():
            row[f"seconds_{name}"] = statistics.median(seconds for seconds, _ in results)
            row[f"accuracy_{name}"] = mean_of(accuracy for _, accuracy in results)
        row["speedup"] = row["seconds_loop"] / row["seconds_ours"]
        rows.append(row)
        print(
            f"{fusion:12} "
            f"loop {row['seconds_loop']:7.2f} s {shown(row['accuracy_loop'])}   "
            f"ours {row['seconds_ours']:7.2f} s {shown(row['accuracy_ours'])}   "
            f"{row['speedup']:5.2f} x",
            flush=True,
        )
    return {
        "speedup_vs_dataloader_loop": sum(row["seconds_loop"] for row in rows)
        / sum(row["seconds_ours"] for row in rows),
        "seconds_ours": sum(row["seconds_ours"] for row in rows),
        "seconds_loop": sum(row["seconds_loop"] for row in rows),
        "accuracy_ours": mean_of(row["accuracy_ours"] for row in rows),
        "accuracy_loop": mean_of(row["accuracy_loop"] for row in rows),
        "fusions": rows,
    }


def recipes(data: Data, seeds: int) -> dict[str, Any]:
    """llmembed's defaults and the authors' settings, both through llmembed's loop."""
    makers: dict[str, Callable[..., HeadConfig]] = {"ours": HeadConfig, "authors": HeadConfig.paper}
    rows = []
    for fusion in TABLE_1:
        row: dict[str, Any] = {"fusion": fusion, "number": FUSIONS[fusion].number}
        for name, make in makers.items():
            results = [ours(data, fusion, make(seed=seed)) for seed in range(seeds)]
            row[f"seconds_{name}"] = statistics.mean(seconds for seconds, _ in results)
            row[f"accuracy_{name}"] = mean_of(accuracy for _, accuracy in results)
            row[f"collapsed_{name}"] = sum(accuracy is None for _, accuracy in results)
        rows.append(row)
        print(
            f"{fusion:12} "
            + "   ".join(
                f"{name} {row[f'seconds_{name}']:7.2f} s {shown(row[f'accuracy_{name}'])}"
                for name in makers
            ),
            flush=True,
        )
    whole: dict[str, Any] = {"seeds": seeds}
    for name in makers:
        whole[f"seconds_{name}"] = sum(row[f"seconds_{name}"] for row in rows)
        whole[f"accuracy_{name}"] = mean_of(row[f"accuracy_{name}"] for row in rows)
    return {**whole, "fusions": rows}


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of the values there are."""
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def shown(accuracy: float | None) -> str:
    return "collapsed" if accuracy is None else f"{accuracy:.4f}"


def command() -> str:
    """As it was typed, without folders of this machine."""
    words = ["python", "benchmarks/head.py", *sys.argv[1:]]
    places = [i + 1 for i, word in enumerate(words) if word in ("--store", "--data")]
    return " ".join(word for i, word in enumerate(words) if i not in places and i + 1 not in places)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--data", metavar="DIR", help="local copies of the benchmarks")
    parser.add_argument("--corpus", default="r8", help="benchmark whose texts are used")
    parser.add_argument("--limit", type=int, help="no more than so many texts of each part")
    parser.add_argument("--store", type=Path, help="where embeddings are kept between runs")
    parser.add_argument("--epochs", type=int, default=40, help="epochs of the equal-step part")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--widths", type=int, nargs="+", default=list(HeadConfig().widths))
    parser.add_argument(
        "--authors-epochs", type=int, default=10, help="the same with the authors' head; 0: not"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1, help="0 leaves the recipes out")
    args = parser.parse_args()
    if args.data:
        os.environ["LLMEMBED_DATA_DIR"] = args.data
    import torch

    with tempfile.TemporaryDirectory() as scratch:
        data = embedded(args.corpus, args.limit, args.store or Path(scratch))
        equal = HeadConfig(
            widths=tuple(args.widths),
            batch=args.batch,
            least_steps=1,
            epochs=args.epochs,
            schedule="constant",
            label_smoothing=0.0,
            patience=None,
            calibrate=False,
        )
        print(f"equal steps: {equal.widths}, batch {equal.batch}, {equal.epochs} epochs")
        result = equal_steps(data, equal, args.repeats)
        if args.authors_epochs:
            wide = HeadConfig.from_json(
                {**equal.to_json(), "widths": [1024, 256], "epochs": args.authors_epochs}
            )
            print(f"equal steps: {wide.widths}, batch {wide.batch}, {wide.epochs} epochs")
            result["authors_head"] = {**equal_steps(data, wide, 1), "settings": wide.to_json()}
        if args.seeds:
            print("recipes: ours, and the authors' 100 epochs")
            result["recipes"] = recipes(data, args.seeds)
    result = {
        **result,
        "corpus": args.corpus,
        "rows": {name: len(getattr(data, name).labels) for name in ("train", "valid", "test")},
        "settings": equal.to_json(),
        "repeats": args.repeats,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "command": command(),
    }
    print(
        f"sum over the fifteen: loop {result['seconds_loop']:.1f} s, ours "
        f"{result['seconds_ours']:.1f} s, {result['speedup_vs_dataloader_loop']:.2f} x; accuracy "
        f"{shown(result['accuracy_loop'])} and {shown(result['accuracy_ours'])}"
    )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
