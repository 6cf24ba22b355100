"""Pictures of a sweep; matplotlib is loaded when one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llmembed.evaluation.pictures import BLUE, COLOURS, GREY, VERMILION
from llmembed.fusion import FUSIONS
from tune.board import Standing
from tune.ledger import Record
from tune.models.space import TrainingConfiguration

AXIS = {
    "energy_joules": "joules to fit (of a frozen model: the head only)",
    "latency_seconds": "seconds for one text (of a frozen model: fusion and head)",
    "parameters": "parameters trained",
}


def by_fusion(records: Mapping[str, Record], path: Path) -> Path:
    """Validation scores of every fit by its fusion; bars are means and one deviation."""
    values: dict[str, list[float]] = {}
    for record in records.values():
        if record.status == "ok":
            fusion = record.planned.configuration.title
            values.setdefault(fusion, []).append(record.figures["valid_accuracy"])
    names = [name for name in FUSIONS if name in values]
    figure, axes = _figure(8.0, 0.8 + 0.3 * len(names))
    for y, name in enumerate(names):
        own = np.array(values[name])
        axes.plot(own, np.full(len(own), y), "o", color=GREY, ms=3.5, alpha=0.6, zorder=1)
        sd = own.std(ddof=1) if len(own) > 1 else 0.0
        axes.errorbar(own.mean(), y, xerr=sd, fmt="D", color=BLUE, ms=5, capsize=3, zorder=2)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("validation score (each point one fit; mean and one standard deviation)")
    return _save(figure, axes, path)


def by_sigma(records: Mapping[str, Record], path: Path) -> Path:
    """Validation scores against σ, a line for each fusion that has one."""
    values: dict[str, dict[float, list[float]]] = {}
    for record in records.values():
        c = record.planned.configuration
        sigma = getattr(c, "sigma", None)
        if record.status == "ok" and sigma is not None:
            own = values.setdefault(c.title, {}).setdefault(sigma, [])
            own.append(record.figures["valid_accuracy"])
    figure, axes = _figure(6.5, 4.0)
    for colour, (name, at) in zip(COLOURS, sorted(values.items()), strict=False):
        sigmas = sorted(at)
        means = np.array([np.mean(at[sigma]) for sigma in sigmas])
        sds = np.array([np.std(at[s], ddof=1) if len(at[s]) > 1 else 0.0 for s in sigmas])
        line = "-" if max(map(len, at.values())) > 1 or len(sigmas) < 8 else ""
        axes.errorbar(sigmas, means, yerr=sds, fmt=f"o{line}", color=colour, ms=4, label=name)
    axes.set_xlabel("σ of the power normalisation tanh(σx/2)")
    axes.set_ylabel("validation score")
    axes.legend(frameon=False)
    return _save(figure, axes, path)


def by_setting(records: Mapping[str, Record], found: Sequence[Any], folder: Path) -> list[Path]:
    """Validation scores of every fit against each setting in which configurations differ, a
    picture each; ``found``: the configurations."""
    names = list(dict.fromkeys(name for each in found for name in each.differing(found)))
    drawn = []
    for name in names:
        points = [
            (dict(record.planned.configuration.settings)[name], record.figures["valid_accuracy"])
            for record in records.values()
            if record.status == "ok"
            and isinstance(record.planned.configuration, TrainingConfiguration)
            and name in dict(record.planned.configuration.settings)
        ]
        figure, axes = _figure(6.5, 4.0)
        numbers = all(type(value) in (int, float) for value, _ in points)
        xs: list[Any] = [value if numbers else str(value) for value, _ in points]
        axes.plot(xs, [accuracy for _, accuracy in points], "o", color=BLUE, ms=4)
        if numbers and min(xs) > 0 and max(xs) >= 10 * min(xs):
            axes.set_xscale("log")
        axes.set_xlabel(name)
        axes.set_ylabel("validation score")
        drawn.append(_save(figure, axes, folder / f"accuracy_by_{name.replace('.', '_')}.png"))
    return drawn


def front(found: Sequence[Standing], kept: Sequence[Standing], cost: str, path: Path) -> Path:
    """Accuracy against ``cost``; the Pareto front is joined and named."""
    figure, axes = _figure(7.0, 4.5)
    known = [each for each in found if cost in each.figures]
    axes.plot(
        [each.figures[cost] for each in known],
        [each.accuracy for each in known],
        "o",
        color=GREY,
        ms=4,
        alpha=0.7,
    )
    xs, ys = [each.figures[cost] for each in kept], [each.accuracy for each in kept]
    axes.step(xs, ys, where="post", color=VERMILION, lw=1.2)
    axes.plot(xs, ys, "o", color=VERMILION, ms=6)
    for number, each in enumerate(kept):
        axes.annotate(
            each.configuration.title,
            (each.figures[cost], each.accuracy),
            textcoords="offset points",
            xytext=(5, -12 if number % 2 else 6),
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.set_xlabel(AXIS[cost])
    axes.set_ylabel("validation score")
    return _save(figure, axes, path)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _save(figure: Any, axes: Any, path: Path) -> Path:
    axes.grid(color="#ececec", lw=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=150, facecolor="white")
    return path
