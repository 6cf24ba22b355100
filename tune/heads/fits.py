"""Fits planned by a sweep, in this process: one by one or side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from llmembed.contract import Reporter, Silent, Usage
from llmembed.errors import LlmembedError
from llmembed.heads import HeadConfig
from llmembed.heads.settings import head_config
from llmembed.metering import Meter
from tune.heads.data import SharedData
from tune.heads.space import Configuration
from tune.ledger import Planned, Record

HeadOf = Callable[[Configuration], Mapping[str, Any]]
"""The head's settings under a configuration: ``Sweep.head_of``."""
LATENCY_CALLS = 30
CACHE_BYTES = 64 * 2**20
"""Weights, gradients and moments that are trained side by side on a CPU: past its cache their
traffic costs more than what side by side saves, and small groups keep all cores busy."""


def fit_alone(
    planned: Planned,
    data: SharedData,
    head: Mapping[str, Any],
    *,
    reporter: Reporter | None = None,
    threads: int | None = None,
) -> Record:
    """One fit by ``train_head``; a failure is a record too, with its reason."""
    from llmembed.heads.training import train_head

    config = _config(head, planned.seed)
    heard = _History(reporter or Silent())
    with Meter() as meter:
        try:
            configuration = _of_heads(planned)
            views, valid = data.read(configuration)
            trained = train_head(
                _fusion(configuration, views),
                views,
                data.labels,
                data.tasks,
                valid_views=valid,
                valid_labels=data.valid_labels,
                config=config,
                reporter=heard if reporter is not None else None,
                threads=threads,
            )
        except (LlmembedError, MemoryError, RuntimeError) as error:
            return _failed(planned, error, grouped=False)
    return _record(planned, trained, valid, meter.usage, history=tuple(heard.accuracies))


def fit_grouped(
    planned: Sequence[Planned],
    data: SharedData,
    head_of: HeadOf,
    *,
    threads: int | None = None,
    pool: Any = None,
) -> Iterator[Record]:
    """Fits of one shape side by side. Where memory does not suffice for all, halves are tried."""
    from llmembed.fusion.grouped import stack
    from llmembed.heads.training import train_grouped

    fits = [make_fit(each, data, head_of) for each in planned]
    with Meter() as meter:
        try:
            heads = train_grouped(
                fits,
                data.labels,
                data.tasks,
                valid_labels=data.valid_labels,
                threads=threads,
                pool=pool,
                stack=stack,
            )
        except (MemoryError, RuntimeError) as error:
            heads = []
            if len(planned) == 1:
                yield _failed(planned[0], error, grouped=True)
                return
        except LlmembedError as error:
            for each in planned:
                yield _failed(each, error, grouped=True)
            return
    if not heads:
        middle = len(planned) // 2
        for half in (planned[:middle], planned[middle:]):
            yield from fit_grouped(half, data, head_of, threads=threads)
        return
    sizes = [0 if isinstance(h, LlmembedError) else h.parameters_trained for h in heads]
    whole = sum(sizes) or 1
    for each, fit, trained, size in zip(planned, fits, heads, sizes, strict=True):
        if isinstance(trained, LlmembedError):
            yield _failed(each, trained, grouped=True)
        else:
            usage = meter.usage.scaled(size / whole)
            yield _record(each, trained, fit.valid_views, usage, grouped=True)


def make_fit(planned: Planned, data: SharedData, head_of: HeadOf) -> Any:
    """The fit as ``train_grouped`` takes it."""
    from llmembed.fusion.grouped import stacking_key
    from llmembed.heads.shared import Fit

    configuration = _of_heads(planned)
    views, valid = data.read(configuration)
    fusion = _fusion(configuration, views)
    return Fit(
        fusion=fusion,
        views=views,
        valid_views=valid,
        config=_config(head_of(configuration), planned.seed),
        stacking=stacking_key(fusion),
    )


def grouped(
    planned: Sequence[Planned], data: SharedData, head_of: HeadOf, *, most_bytes: int | None
) -> list[list[Planned]]:
    """``planned`` in groups of equal shape, none of which holds more than ``most_bytes`` of
    weights and optimiser state (None: no limit). The largest groups stand first."""
    from llmembed.heads.shared import bytes_needed, shape_key

    by_shape: dict[Any, list[Planned]] = {}
    sizes: dict[Any, int] = {}
    classes = [len(task.classes) for task in data.tasks]
    for each in planned:
        fit = make_fit(each, data, head_of)
        key = shape_key(fit, data.train_rows)
        sizes[key] = bytes_needed(fit, classes)
        by_shape.setdefault(key, []).append(each)
    groups: list[tuple[int, list[Planned]]] = []
    for key, fits in by_shape.items():
        fits.sort(key=lambda each: each.seed)  # fits of one seed read the same batches
        most = len(fits) if most_bytes is None else max(1, most_bytes // sizes[key])
        count = -(-len(fits) // most)
        for part in np.array_split(np.arange(len(fits)), count):
            groups.append((sizes[key] * len(part), [fits[i] for i in part]))
    return [fits for _, fits in sorted(groups, key=lambda group: -group[0])]


def _of_heads(planned: Planned) -> Configuration:
    assert isinstance(planned.configuration, Configuration), "models have a room of their own"
    return planned.configuration


def _fusion(c: Configuration, views: Mapping[str, np.ndarray]) -> Any:
    from llmembed.fusion import build_fusion

    shapes = {name: (rows.shape[1], rows.shape[2]) for name, rows in views.items()}
    given = {"sigma": c.sigma, "align": c.align, "dropout": c.align_dropout}
    own: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    return build_fusion(c.fusion, shapes, width=c.width, **own)


def _config(head: Mapping[str, Any], seed: int) -> HeadConfig:
    return replace(head_config(head), seed=seed)


def _record(
    planned: Planned,
    trained: Any,
    valid: Mapping[str, np.ndarray],
    usage: Usage,
    *,
    grouped: bool = False,
    history: tuple[float, ...] = (),
) -> Record:
    figures = {
        **trained.metrics,
        "seconds": usage.seconds,
        "energy_joules": usage.energy_joules,
        "latency_seconds": _latency(trained, valid),
        "parameters": float(trained.parameters_trained),
        "epochs": float(trained.epochs),
    }
    return Record(
        planned=planned,
        status="ok",
        grouped=grouped,
        energy_is_estimated=usage.energy_is_estimated,
        figures=figures,
        history=history,
    )


def _failed(planned: Planned, error: BaseException, *, grouped: bool) -> Record:
    words = " ".join(str(error).split())
    kind = "out of memory: " if isinstance(error, MemoryError) or "memory" in words else ""
    return Record(
        planned=planned,
        status="failed",
        reason=(kind + words or repr(error))[:500],
        grouped=grouped,
    )


def _latency(trained: Any, valid: Mapping[str, np.ndarray]) -> float:
    """Median seconds of fusion and head for one text whose views are ready."""
    one = {name: np.array(rows[:1]) for name, rows in valid.items()}
    trained.scores(one)
    seconds = []
    for _ in range(LATENCY_CALLS):
        start = time.perf_counter()
        trained.scores(one)
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


class _History:
    """Passes reports on and remembers validation accuracies."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self.accuracies: list[float] = []

    def report(self, metrics: Mapping[str, float], *, step: int) -> None:
        self.accuracies.append(float(metrics["valid_accuracy"]))
        self._reporter.report(metrics, step=step)
