"""What lies beside a saved classifier: chosen thresholds, and what it answered on validation."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmembed.errors import ConfigError

if TYPE_CHECKING:
    from llmembed.evaluation import Result, Selective

THRESHOLDS = "thresholds.json"
VALIDATION = "validation.json"


def write_thresholds(folder: Path, result: Result) -> None:
    """Beside a classifier: task -> ``unknown_below``, the score below which ``unknown`` is the
    better answer (null where no score promises the wanted precision), what it promises and what
    test said of it: the figures of ``evaluation.Threshold`` and ``Selective``."""
    chosen = {}
    for task, selective in result.selective.items():
        figures = asdict(selective.threshold)
        chosen[task] = {
            "unknown_below": figures.pop("value"),
            **figures,
            "test": {
                "coverage": selective.coverage,
                "precision": selective.precision,
                "interval": selective.interval and asdict(selective.interval),
            },
        }
    (folder / THRESHOLDS).write_text(json.dumps(chosen, indent=1), encoding="utf-8")


def write_validation(folder: Path, result: Result) -> None:
    """Beside a classifier: task -> what it answered on validation, to tell drift from: ``texts``,
    ``labels`` (class -> share of the answers, for ``single``) and ``confidence`` (share of the
    answers in each of the bins of ``evaluation.confidence``)."""
    seen: dict[str, dict[str, Any]] = {}
    for task, scores in result.valid.items():
        seen[task] = {"texts": scores.examples}
        pairs = scores.counted
        if pairs is not None:
            given = pairs.answered.tolist()
            total = max(sum(given), 1)
            names = [row.name for row in scores.per_class]
            seen[task]["labels"] = dict(zip(names, [n / total for n in given], strict=True))
        if scores.reliability:
            counts = scores.reliability.counts
            seen[task]["confidence"] = [n / max(sum(counts), 1) for n in counts]
    (folder / VALIDATION).write_text(json.dumps(seen, indent=1), encoding="utf-8")


def read_validation(folder: Path) -> dict[str, Any]:
    """What ``write_validation`` wrote; empty for a classifier saved without it."""
    path = folder / VALIDATION
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def offered_thresholds(folder: Path) -> dict[str, float]:
    """Task -> the score below which the answer is ``unknown``, for those tasks that have one."""
    found = _chosen(folder)
    return {
        task: float(selective.threshold.value)
        for task, selective in found.items()
        if selective.threshold.value is not None
    }


def read_thresholds(folder: Path) -> tuple[dict[str, float], list[str]]:
    """Task -> the score below which the answer is ``unknown``; and what each promises, a line
    each.

    Raises:
        ConfigError: none was chosen, or the wanted precision can't be promised for some task.
    """
    from llmembed.evaluation import promise

    found = _chosen(folder)
    if not found:
        raise ConfigError("--unknown-below chosen: this classifier holds no chosen threshold")
    for task, selective in found.items():
        threshold = selective.threshold
        if threshold.value is None:
            why = threshold.reason or (
                f"on validation no threshold gave a precision of {threshold.wanted_precision:g}"
            )
            raise ConfigError(f"--unknown-below chosen: task {task!r}: {why}; give a score instead")
    return offered_thresholds(folder), [f"{task}: {promise(s)}" for task, s in found.items()]


def _chosen(folder: Path) -> dict[str, Selective]:
    """What ``write_thresholds`` wrote, without the curves; by an earlier version the score and the
    wanted precision alone."""
    from llmembed.evaluation import CoverageCurve, Interval, Selective, Threshold

    path = folder / THRESHOLDS
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    read = {}
    for task, chosen in found.items():
        own = dict(chosen)
        test = own.pop("test", {})
        interval = test.get("interval")
        value = own.pop("unknown_below")
        read[task] = Selective(
            threshold=Threshold(**{"coverage": 0.0, "precision": 0.0, **own, "value": value}),
            curve=CoverageCurve(threshold=(), coverage=(), accuracy=()),
            coverage=test.get("coverage"),
            precision=test.get("precision"),
            interval=interval and Interval(**interval),
        )
    return read
