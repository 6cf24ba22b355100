"""Pictures of results, as PNG (or by the ending of the path: SVG, PDF).

Colours are of the Okabe-Ito palette, told apart by colour-blind readers too. matplotlib is loaded
when a picture is drawn; no window and no global state is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmembed.evaluation.confusion import WHOLE_UP_TO
from llmembed.evaluation.placing import place_labels
from llmembed.metrics import shown_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from llmembed.evaluation.leaderboard import Leaderboard
    from llmembed.evaluation.metrics import Scores
    from llmembed.evaluation.result import Selective
    from llmembed.evaluation.rows import Row

BLUE, VERMILION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8a8a8a"
COLOURS = (BLUE, VERMILION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
PIXELS_PER_INCH = 150
AS_WRITTEN: dict[str, Any] = {"parse_math": False}
"""Names are the user's: two dollar signs in them begin no formula."""
MOST_CONFUSED = 40
NUMBERS_UP_TO = 24
"""More classes than these are shown by colour alone, and by numbers where they go wrong."""


def confusion_picture(scores: Scores, path: str | Path, *, title: str | None = None) -> Path:
    """The confusion matrix of a ``single`` task: each row's share by answer, counts of texts at
    the row's name. Below 0.5 % a cell is left white. Of more than ``WHOLE_UP_TO`` classes those
    most often confused, ``MOST_CONFUSED`` of them."""
    pairs = scores.counted
    assert pairs is not None, "only a task of one label a text has a confusion matrix"
    shown = np.arange(pairs.classes)
    if pairs.classes > WHOLE_UP_TO:
        shown = pairs.most_confused(MOST_CONFUSED)
    support = np.array([scores.per_class[i].support for i in shown])
    shares = pairs.matrix(shown) / np.maximum(support, 1)[:, None]
    names = [scores.per_class[i].name for i in shown]
    n = len(names)
    longest = min(max(len(name) for name in names), 28)
    cell = 0.62 if n <= 10 else 0.44 if n <= NUMBERS_UP_TO else 0.235
    font = 10.0 if n <= 10 else 8.5 if n <= NUMBERS_UP_TO else 7.0
    margin = 0.6 + (longest + 6) * font / 72 * 0.6
    figure = _figure(n * cell + margin + 1.1, n * cell + margin + 0.6)
    axes = figure.subplots()
    image = axes.imshow(np.ma.masked_less(shares, 0.005), cmap="Blues", vmin=0.0, vmax=1.0)
    short = [name if len(name) <= 28 else name[:27] + "…" for name in names]
    turned: dict[str, Any] = {"rotation": 90}
    if n <= 10:
        turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(n), short, fontsize=font, **AS_WRITTEN, **turned)
    rows = [f"{name} ({total})" for name, total in zip(short, support, strict=True)]
    axes.set_yticks(range(n), rows, fontsize=font, **AS_WRITTEN)
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#e4e4e4", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    small = font - 1.0 if n <= NUMBERS_UP_TO else 5.6
    for i, j in zip(*np.nonzero(shares >= 0.005), strict=True):
        if n > NUMBERS_UP_TO and i != j and shares[i, j] < 0.05:
            continue
        percent = 100 * shares[i, j]
        colour = "white" if shares[i, j] > 0.55 else "#222222"
        axes.text(j, i, f"{percent:.0f}", ha="center", va="center", fontsize=small, color=colour)
    axes.set_xlabel("answered")
    axes.set_ylabel("true (texts)")
    bar = figure.colorbar(image, ax=axes, shrink=0.5, aspect=30, pad=0.02)
    bar.set_label("% of the true class", fontsize=9)
    bar.set_ticks([0, 0.5, 1.0], labels=["0", "50", "100"])
    bar.outline.set_visible(False)
    unread = f", {100 * scores.invalid_rate:.1f} % unreadable" if scores.invalid_rate else ""
    told = f"{scores.task}: accuracy {scores.metrics['accuracy']:.4f} on {scores.examples} texts"
    few = f"\nthe {n} of {pairs.classes:,} classes most often confused" if n < pairs.classes else ""
    axes.set_title((title or told + unread) + few, fontsize=11, loc="left", **AS_WRITTEN)
    return _save(figure, path)


def front_picture(board: Leaderboard, path: str | Path) -> Path:
    """Accuracy (or F1; mean over tasks) against energy: bars are one standard deviation over
    seeds, the line joins the rows that no other beats in both. Rows that may not win are left
    out."""
    rows = [row for row in board.rows if row.eligible and row.energy_kwh]
    figure = _figure(8.4, 5.2)
    axes = figure.subplots()
    if not rows:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no fitted row with a known energy", ha="center", color=GREY)
        return _save(figure, path)
    front = _front(rows)
    energies = [row.energy_kwh or 0.0 for row in rows]
    values = [row.shown_mean.mean for row in rows if row.shown_mean]
    steps = sorted((row.energy_kwh or 0.0, _shown(row)) for row in front)
    axes.plot([x for x, _ in steps], [y for _, y in steps], "-", color=BLUE, lw=1.4, zorder=2)
    for row, x, y in zip(rows, energies, values, strict=True):
        colour = BLUE if row in front else GREY
        marker = "o" if not row.energy_is_estimated else "D"
        axes.errorbar(x, y, yerr=_sd(row) or None, color=colour, capsize=3, lw=1.2, zorder=3)
        axes.plot(
            x,
            y,
            marker,
            color=colour,
            markersize=7,
            markerfacecolor="white" if row.energy_is_estimated else colour,
            markeredgewidth=1.6,
            zorder=4,
        )
    axes.set_xscale("log")
    _give_room(axes, energies, rows)
    estimated = any(row.energy_is_estimated for row in rows)
    axes.set_xlabel("energy to fit and to answer the test texts, kWh" + _hollow(estimated))
    names = {shown_name(metric) for metric in board.primary.values()}
    metric = names.pop() if len(names) == 1 else "primary metric"
    split = "test" if any(row.test for row in rows) else "validation"
    over = ", mean over tasks" if len(board.primary) > 1 else ""
    axes.set_ylabel(f"{split} {metric}{over}")
    partial = " (partial data)" if board.partial else ""
    told = f"{board.corpus}{partial}: what accuracy costs"
    axes.set_title(told, fontsize=11, loc="left", **AS_WRITTEN)
    axes.grid(color="#ececec", lw=0.8)
    _plain(axes)
    winner = board.winner
    named = [(row.label + (" ★" if row is winner else "")) for row in rows]
    colours = ["#1a1a1a" if row in front else "#666666" for row in rows]
    points = list(zip(energies, values, strict=True))
    bars = [
        [(x, y - sd), (x, y + sd)] for (x, y), sd in zip(points, map(_sd, rows), strict=True) if sd
    ]
    place_labels(axes, points, named, colours, lines=[*([steps] if len(steps) > 1 else []), *bars])
    return _save(figure, path)


def coverage_picture(curves: Mapping[str, Selective], path: str | Path) -> Path:
    """Accuracy over the share of texts answered; by name (of a method or task). A dot marks where
    the threshold chosen on validation came to lie on test, a bar the interval of its precision."""
    figure = _figure(7.2, 4.6)
    axes = figure.subplots()
    lowest = 1.0
    for i, (name, selective) in enumerate(curves.items()):
        curve, threshold = selective.curve, selective.threshold
        colour = COLOURS[i % len(COLOURS)]
        coverage, accuracy = np.array(curve.coverage), np.array(curve.accuracy)
        steady = coverage >= min(0.05, coverage[-1])  # a handful of texts swing too far
        lowest = min(lowest, float(accuracy[steady].min()))
        told = f"{name} ({accuracy[-1]:.3f} of all)"
        if not threshold.attainable:
            told += f", {threshold.wanted_precision:g} unattainable"
        axes.plot(
            coverage[steady],
            accuracy[steady],
            STYLES[i % len(STYLES)],
            color=colour,
            lw=1.8,
            label=told,
        )
        if selective.coverage and selective.precision is not None:
            low_high = selective.interval
            if low_high is not None:
                ends = [low_high.low, low_high.high]
                axes.plot([selective.coverage] * 2, ends, "-", color=colour, lw=1.2, zorder=3)
                lowest = min(lowest, low_high.low)
            axes.plot(
                selective.coverage,
                selective.precision,
                "o",
                color=colour,
                markersize=8,
                markeredgecolor="white",
                zorder=4,
            )
    for wanted in {selective.threshold.wanted_precision for selective in curves.values()}:
        axes.axhline(wanted, color=GREY, lw=1, ls=(0, (2, 2)), label=f"wanted precision {wanted:g}")
        lowest = min(lowest, wanted)
    if any(selective.precision is not None for selective in curves.values()):
        axes.plot([], [], "o", color=GREY, ms=8, mec="white", label="threshold from validation")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(max(0.0, lowest - 0.12 * (1 - lowest) - 0.005), 1 + 0.06 * (1 - lowest) + 0.002)
    axes.set_xlabel("coverage: share of texts answered, the rest is “unknown”")
    axes.set_ylabel("accuracy of the answers")
    axes.set_title("Answering only when sure", fontsize=11, loc="left")
    legend = axes.legend(frameon=False, fontsize=9, loc="lower left")
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.grid(color="#ececec", lw=0.8)
    _plain(axes)
    return _save(figure, path)


def reliability_picture(scores: Scores, path: str | Path) -> Path:
    """Share of right answers by confidence, and below it how many answers each bin holds."""
    assert scores.reliability is not None, "a method without scores has no confidence"
    bins = scores.reliability
    counts = np.array(bins.counts)
    n = len(counts)
    figure = _figure(5.2, 5.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    held = counts > 0
    left = np.arange(n) / n
    accuracy, confidence = np.array(bins.accuracy), np.array(bins.confidence)
    upper.plot([0, 1], [0, 1], color=GREY, lw=1, ls=(0, (3, 3)), label="perfectly calibrated")
    upper.bar(
        left[held],
        accuracy[held],
        1 / n,
        align="edge",
        color="#9ecae1",
        edgecolor="white",
        label="right answers",
    )
    upper.plot(
        confidence[held], accuracy[held], "o-", color=BLUE, ms=5, lw=1.3, label="at mean confidence"
    )
    upper.set_ylim(0, 1.02)
    upper.set_xlim(0, 1)
    upper.set_ylabel("share of right answers")
    told = f"{scores.task}: expected calibration error {bins.ece:.4f}"
    upper.set_title(told, fontsize=11, loc="left", **AS_WRITTEN)
    upper.legend(frameon=False, fontsize=9, loc="upper left")
    lower.bar(left, counts, 1 / n, align="edge", color="#bdbdbd", edgecolor="white")
    lower.set_ylabel("answers")
    lower.set_xlabel("confidence")
    for axes in (upper, lower):
        axes.grid(color="#ececec", lw=0.8)
        _plain(axes)
    return _save(figure, path)


def _front(rows: list[Row]) -> list[Row]:
    """Rows that no other beats: none has both at least the score and less energy."""
    kept: list[Row] = []
    best = -np.inf
    for row in sorted(rows, key=lambda row: (row.energy_kwh or 0.0, -_shown(row))):
        if _shown(row) > best:
            kept.append(row)
            best = _shown(row)
    return kept


def _shown(row: Row) -> float:
    return row.shown_mean.mean if row.shown_mean else -np.inf


def _sd(row: Row) -> float:
    """0 of a single fit."""
    return (row.shown_mean.sd or 0.0) if row.shown_mean else 0.0


def _give_room(axes: Axes, energies: list[float], rows: list[Row]) -> None:
    """Margins for the labels: a tenth of the span up and down, more to the right."""
    low, high = np.log10(min(energies)), np.log10(max(energies))
    span = max(high - low, 0.6)
    middle = (low + high) / 2
    low, high = min(low, middle - 0.3), max(high, middle + 0.3)
    axes.set_xlim(10 ** (low - 0.12 * span), 10 ** (high + 0.22 * span))
    bottom = min(_shown(row) - _sd(row) for row in rows)
    top = max(_shown(row) + _sd(row) for row in rows)
    height = max(top - bottom, 0.01)
    axes.set_ylim((bottom + top) / 2 - 0.62 * height, (bottom + top) / 2 + 0.64 * height)


def _hollow(estimated: bool) -> str:
    return " (hollow: estimated)" if estimated else ""


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _plain(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_axisbelow(True)


def _save(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"dpi": PIXELS_PER_INCH, "facecolor": "white", "bbox_inches": "tight"}
    figure.savefig(path, **options)
    return path
