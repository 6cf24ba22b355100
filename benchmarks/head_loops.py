"""The ways of training heads that ``head.py`` compares, and the data they train on."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmembed.contract import Task
from llmembed.errors import CollapseError, LlmembedError
from llmembed.fusion import FUSIONS, build_fusion
from llmembed.heads import HeadConfig
from llmembed.heads.trained import TrainedHead
from llmembed.heads.training import train_grouped, train_head

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


def alone(data: Data, fusion: str, config: HeadConfig) -> tuple[float, float | None]:
    """Seconds and test accuracy of one fit by itself; no accuracy for a fit that collapsed."""
    start = time.perf_counter()
    try:
        head = fitted(data, fusion, config)
    except CollapseError as error:
        print(f"{fusion}: {error}", file=sys.stderr)
        return time.perf_counter() - start, None
    seconds = time.perf_counter() - start
    return seconds, accuracy_of(head, data)


def side_by_side(data: Data, config: HeadConfig) -> tuple[float, dict[str, float | None]]:
    """Seconds for all fifteen fusions and each one's test accuracy, trained as sweeps train them:
    fits of equal shape together, views scaled once."""
    from llmembed.fusion.grouped import stack, stacking_key
    from llmembed.heads.shared import Fit, Pool, shape_key
    from llmembed.heads.trained import pick_device

    start = time.perf_counter()
    pool = Pool(pick_device("auto"))
    groups: dict[object, dict[str, Fit]] = {}
    for name in TABLE_1:
        fusion = build_fusion(name, shapes(data.train.views))
        fit = Fit(
            fusion=fusion,
            views=data.train.views,
            valid_views=data.valid.views,
            config=config,
            stacking=stacking_key(fusion),
        )
        groups.setdefault(shape_key(fit, len(data.train.labels)), {})[name] = fit
    heads: dict[str, TrainedHead | LlmembedError] = {}
    for group in groups.values():
        trained = train_grouped(
            list(group.values()),
            {data.task.name: data.train.labels},
            [data.task],
            valid_labels={data.task.name: data.valid.labels},
            pool=pool,
            stack=stack,
        )
        heads.update(zip(group, trained, strict=True))
    seconds = time.perf_counter() - start
    return seconds, {
        name: None if isinstance(head, LlmembedError) else accuracy_of(head, data)
        for name, head in heads.items()
    }


def accuracy_of(head: TrainedHead, data: Data) -> float:
    """On test."""
    answers = head.scores(data.test.views)[data.task.name].argmax(1)
    return float((answers == data.test.labels).mean())


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
