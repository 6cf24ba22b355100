"""How a corpus' tasks are judged: an experiment's metric and costs, put on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from llmembed.contract import Task
from llmembed.errors import ConfigError
from llmembed.metrics import check_metric, is_known, known
from llmembed.mistakes import suggest

if TYPE_CHECKING:
    from llmembed.texts import Corpus

Costs = Mapping[str, Mapping[str, Mapping[str, float]]]
MOST_CLASSES = 1000
"""The table of costs goes with every saved classifier, and grows with the square of its classes."""


def judged(corpus: Corpus, metric: str | Mapping[str, str] | None, costs: Costs) -> Corpus:
    """``corpus`` with tasks that know by what they are judged.

    ``metric``: one name for all tasks, or by task. ``costs``: by task, truth and answer; a task
    with costs and without a metric is judged by ``cost``. What is not named stays as it is. Raises
    ``ConfigError`` for tasks and classes that there are not, and for what does not fit a task.
    """
    names = [task.name for task in corpus.tasks]
    _each_known("metric", metric if isinstance(metric, Mapping) else (), names, "task")
    _each_known("costs", costs, names, "task")
    if isinstance(metric, str):
        _fits_all(metric, corpus.tasks)
    tasks = []
    for task in corpus.tasks:
        named = metric if isinstance(metric, str) else (metric or {}).get(task.name)
        if task.name in costs:
            table = _table(task, costs[task.name])
            task = replace(task, costs=table, metric=named or "cost")
        elif named is not None:
            task = replace(task, metric=named)
        check_metric(task)
        tasks.append(task)
    return replace(corpus, tasks=tuple(tasks))


def _fits_all(metric: str, tasks: Collection[Task]) -> None:
    for task in tasks:
        if len(tasks) > 1 and not is_known(metric, task.kind):
            said = ", ".join(
                f"{t.name}: {metric if is_known(metric, t.kind) else known(t.kind)[0]}"
                for t in tasks
            )
            raise ConfigError(
                f"metric {metric!r} does not fit the task {task.name!r} of kind {task.kind!r}: "
                f"name one for each task, such as metric: {{{said}}}"
            )


def _table(task: Task, named: Mapping[str, Mapping[str, float]]) -> tuple[tuple[float, ...], ...]:
    """(C, C), rows truth, columns answer."""
    if len(task.classes) > MOST_CLASSES:
        raise ConfigError(
            f"costs.{task.name}: a task of {len(task.classes):,} classes can have none; "
            f"{MOST_CLASSES:,} classes are the most"
        )
    place = {name: number for number, name in enumerate(task.classes)}
    _each_known(f"costs.{task.name}", named, task.classes, "class")
    rows = [[float(truth != answer) for answer in task.classes] for truth in task.classes]
    for truth, answers in named.items():
        _each_known(f"costs.{task.name}.{truth}", answers, task.classes, "class")
        for answer, cost in answers.items():
            rows[place[truth]][place[answer]] = float(cost)
    return tuple(tuple(row) for row in rows)


def _each_known(key: str, names: Collection[str], there: Collection[str], what: str) -> None:
    for name in names:
        if name not in there:
            raise ConfigError(f"{key}: there is no {what} {name!r}{suggest(name, there)}")
