"""Pictures of real scores: that they are drawn, that names are whole and apart."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from small_corpora import made_up
from small_methods import FitWordVotes

from llmembed.contract import Prediction, Task, Usage
from llmembed.evaluation import (
    Leaderboard,
    confusion_picture,
    coverage_picture,
    evaluate,
    front_picture,
    reliability_picture,
    score,
)
from llmembed.evaluation.pictures import _front
from llmembed.evaluation.placing import place_labels


@pytest.fixture(scope="module")
def results():
    return evaluate(FitWordVotes(), made_up(seed=0), None, seeds=(0, 1))


def colours_in(path: Path) -> int:
    red, green, blue = np.moveaxis((imread(path)[::2, ::2, :3] * 255).astype(int), -1, 0)
    return len(np.unique(red * 65536 + green * 256 + blue))


@pytest.mark.parametrize("n", [2, 20, 52])
def test_confusion_of_few_and_of_many_classes(tmp_path, n):
    rng = np.random.default_rng(n)
    task = Task(name="topic", classes=tuple(f"class of some length {i}" for i in range(n)))
    truth = rng.integers(n, size=20 * n)
    labels = np.where(rng.random(20 * n) < 0.8, truth, rng.integers(n, size=20 * n))
    invalid = np.zeros(20 * n, dtype=bool)
    scores = score(task, truth, Prediction(labels=labels, scores=None, invalid=invalid))
    path = confusion_picture(scores, tmp_path / "new folder" / "confusion.png")
    height, width, _ = imread(path).shape
    assert 300 < height < 3000 and 300 < width < 3000
    assert height > 30 * n  # each row is high enough to be read
    assert colours_in(path) > 50


def test_confusion_of_hundreds_of_classes_shows_the_most_confused(tmp_path):
    rng = np.random.default_rng(0)
    task = Task(name="topic", classes=tuple(f"class {i}" for i in range(400)))
    truth = rng.integers(400, size=4000)
    labels = np.where(rng.random(4000) < 0.8, truth, rng.integers(400, size=4000))
    labels[truth == 123] = 321
    answers = Prediction(labels=labels, scores=None, invalid=np.zeros(4000, dtype=bool))
    scores = score(task, truth, answers)
    drawn = confusion_picture(scores, tmp_path / "confusion.svg").read_text()
    assert "the 40 of 400 classes most often confused" in drawn
    assert "<!-- class 123 (" in drawn and "<!-- class 321 (" in drawn
    assert drawn.count("<!-- class ") == 2 * 40
    points = [float(n) for n in re.findall(r'(?:width|height)="([\d.]+)pt"', drawn[:2000])]
    assert len(points) == 2 and max(points) < 72 * 20  # of all 400 it would be 94 inches wide


def test_names_are_drawn_as_they_are_written(results, tmp_path):
    """Two dollar signs would begin a formula, and this one has no end."""
    odd = r"costs $\frac{1$ and $2_"
    names = (odd, "b", "c", "d")
    base = results[0]
    rows = [
        replace(r, name=name) for r, name in zip(base.test["topic"].per_class, names, strict=True)
    ]
    scores = replace(base.test["topic"], task=odd, per_class=tuple(rows))
    for number, path in enumerate(
        (
            confusion_picture(scores, tmp_path / "confusion.png"),
            reliability_picture(scores, tmp_path / "reliability.png"),
            coverage_picture({odd: base.selective["topic"]}, tmp_path / "coverage.png"),
            front_picture(Leaderboard([replace(base, label=odd, corpus=odd)]), tmp_path / "f.png"),
        )
    ):
        assert colours_in(path) > 10, number


def test_reliability_and_coverage(results, tmp_path):
    path = reliability_picture(results[0].test["topic"], tmp_path / "reliability.png")
    assert colours_in(path) > 20
    curves = {f"seed {r.seed}": r.selective["topic"] for r in results}
    path = coverage_picture(curves, tmp_path / "coverage.svg")
    drawn = path.read_text()
    assert drawn.startswith("<?xml") and "#0072b2" in drawn and "#d55e00" in drawn


def board(results, points) -> Leaderboard:
    """One row for each (label, accuracy, joules)."""
    rows = []
    for label, accuracy, joules in points:
        base = results[0]
        scores = base.test["topic"]
        scores = replace(scores, metrics={**scores.metrics, "accuracy": accuracy})
        rows.append(
            replace(
                base,
                label=label,
                valid={"topic": scores},
                test={"topic": scores},
                fit_usage=Usage(measured_joules={"cpu": joules}),
                predict_usage=Usage(),
            )
        )
    return Leaderboard(rows)


def test_front_is_what_nothing_beats_in_both(results):
    points = [("a", 0.9, 1), ("b", 0.8, 2), ("c", 0.95, 5), ("d", 0.95, 9), ("e", 0.99, 100)]
    front = _front(list(board(results, points).rows))
    assert [row.label for row in front] == ["a", "c", "e"]


def test_front_is_drawn_with_many_rows_one_and_none(results, tmp_path):
    points = [(f"method {i}", 0.9 + i / 500, 10 + i) for i in range(12)]
    for name, some in (("many", points), ("one", points[:1])):
        path = front_picture(board(results, some), tmp_path / f"{name}.png")
        assert colours_in(path) > 20
    path = front_picture(Leaderboard([]), tmp_path / "none.png")
    assert colours_in(path) > 2


def test_names_cover_neither_each_other_nor_a_point():
    rng = np.random.default_rng(0)
    figure = Figure(figsize=(8, 5))
    axes = figure.subplots()
    axes.set_xscale("log")
    axes.set_xlim(1, 100)
    axes.set_ylim(0, 1)
    points = list(zip(10 ** rng.normal(1, 0.1, 12), rng.normal(0.5, 0.06, 12), strict=True))
    names = [f"a method of name {i}" for i in range(12)]
    boxes = place_labels(axes, points, names, ["black"] * 12)

    def apart(a, b) -> bool:
        return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]

    assert all(apart(a, b) for a, b in combinations(boxes, 2))
    frame = axes.get_window_extent()
    for left, bottom, right, top in boxes:
        assert frame.x0 <= left and right <= frame.x1 and frame.y0 <= bottom and top <= frame.y1
        for x, y in axes.transData.transform(np.array(points)):
            assert not (left < x < right and bottom < y < top)
