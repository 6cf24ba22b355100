"""The metrics by name, and the kinds of task that each fits."""

from __future__ import annotations

import hashlib
import json
import re

from llmembed.contract import Kind, Task
from llmembed.errors import ConfigError

PRIMARY: dict[Kind, str] = {"single": "accuracy", "multi": "micro_f1", "tokens": "slot_f1"}
"""The metric by which a task of each kind is judged unless it says otherwise."""

RECALL = "recall_at_precision_"
NAMES: dict[Kind, tuple[str, ...]] = {
    "single": (
        "accuracy",
        "macro_f1",
        "weighted_f1",
        "balanced_accuracy",
        "mcc",
        f"{RECALL}0.9",
        "log_loss",
        "cost",
    ),
    "multi": (
        "micro_f1",
        "macro_f1",
        "weighted_f1",
        "subset_accuracy",
        "ranking_precision",
        "coverage_error",
        "log_loss",
    ),
    "tokens": ("slot_f1", "macro_f1", "weighted_f1", "word_accuracy"),
}
LOSSES = ("log_loss", "cost", "coverage_error")
"""Lower is better: the value that choices go by is the negative."""

_BY_SCORES = ("log_loss", "ranking_precision", "coverage_error")
_PRECISION = re.compile(rf"{RECALL}(0?\.\d+|1|1\.0)")


def precision_of(metric: str) -> float | None:
    """The precision that a ``recall_at_precision_…`` asks for; None of other names."""
    found = _PRECISION.fullmatch(metric)
    precision = None if found is None else float(found[1])
    return precision or None


def known(kind: Kind) -> tuple[str, ...]:
    """The names that fit tasks of ``kind``; the precision is any number above 0, up to 1."""
    return NAMES[kind]


def is_known(metric: str, kind: Kind | None = None) -> bool:
    """Whether ``metric`` fits tasks of ``kind``, or of any kind."""
    if precision_of(metric) is not None:
        return kind in (None, "single")
    return any(metric in NAMES[each] for each in ((kind,) if kind else NAMES))


def metric_of(task: Task) -> str:
    """The metric by which ``task`` is judged."""
    return task.metric or PRIMARY[task.kind]


def judged_by(task: Task) -> str:
    """``metric_of``; for ``cost`` with the first digits of the costs' sha256: values under equal
    words can be compared."""
    metric = metric_of(task)
    if metric != "cost":
        return metric
    digest = hashlib.sha256(json.dumps([task.classes, task.costs]).encode()).hexdigest()
    return f"cost ({digest[:8]})"


def needs_scores(metric: str) -> bool:
    """Whether it is told from scores, not from labels."""
    return metric in _BY_SCORES or precision_of(metric) is not None


def sign_of(metric: str) -> float:
    """-1 of a loss, else 1."""
    return -1.0 if metric in LOSSES else 1.0


def value_of(metric: str, figure: float) -> float:
    """What choices go by: ``figure``, of a loss its negative."""
    return sign_of(metric) * figure


def shown_name(metric: str) -> str:
    """For a column of values: ``-log loss`` is the negative of the log loss."""
    return ("-" if metric in LOSSES else "") + metric.replace("_", " ")


def check_metric(task: Task) -> None:
    """Raise ``ConfigError`` where the task's metric, costs or thresholds don't fit it."""
    if task.costs is not None and task.kind != "single":
        raise ConfigError(
            f"costs are for tasks of kind 'single', one answer a text; {task.name!r} is of kind "
            f"{task.kind!r}"
        )
    metric = metric_of(task)
    if not is_known(metric, task.kind):
        raise ConfigError(
            f"metric {metric!r} does not fit the task {task.name!r} of kind {task.kind!r}, which "
            f"can be judged by {', '.join(known(task.kind))}"
        )
    if metric == "cost" and task.costs is None:
        raise ConfigError(
            f"metric 'cost' needs to know what mistakes of the task {task.name!r} cost: give "
            f"costs: {{{task.name}: {{TRUTH: {{ANSWER: cost}}}}}}"
        )
