"""``separate``: a model of its own for each task, by any method: the dual setup that consolidation
is compared with. One classifier answers all tasks still, by as many calls as there are tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from llmembed.contract import (
    Classifier,
    Examples,
    Method,
    Prediction,
    Reporter,
    Runtime,
    Task,
    Usage,
)
from llmembed.errors import ModelError
from llmembed.methods import saved


@dataclass(frozen=True, kw_only=True)
class SeparateClassifier:
    """``parts``: the classifier of each task, in order."""

    method: ClassVar[str] = "separate"
    parts: tuple[Classifier, ...]

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(task for part in self.parts for task in part.tasks)

    @property
    def fit_usage(self) -> Usage:
        return sum((part.fit_usage for part in self.parts), Usage())

    @property
    def predict_usage(self) -> Usage:
        """What the last ``predict`` of all parts took, as far as they say."""
        return sum((getattr(part, "predict_usage", Usage()) for part in self.parts), Usage())

    @property
    def kept_runs(self) -> tuple[str, ...]:
        return tuple(run for part in self.parts for run in getattr(part, "kept_runs", ()))

    @property
    def memory_bytes(self) -> int:
        return sum(int(getattr(part, "memory_bytes", 0)) for part in self.parts)

    def release(self) -> None:
        """Give back what the models hold in this process; see its parts."""
        for part in self.parts:
            if hasattr(part, "release"):
                part.release()

    @property
    def parameters_trained(self) -> int:
        return sum(part.parameters_trained for part in self.parts)

    @property
    def chosen(self) -> dict[str, Any]:
        return {part.tasks[0].name: dict(getattr(part, "chosen", {})) for part in self.parts}

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(
            f"{part.tasks[0].name}: {note}"
            for part in self.parts
            for note in getattr(part, "notes", ())
        )

    def predict(
        self, texts: Sequence[str], runtime: Runtime | None = None
    ) -> dict[str, Prediction]:
        found: dict[str, Prediction] = {}
        for part in self.parts:
            found |= part.predict(texts, runtime)
        return found

    def save(self, folder: Path) -> None:
        """Each part in a folder of its own, ``part-0`` and so on."""
        for number, part in enumerate(self.parts):
            part.save(folder / f"part-{number}")
        saved.write(
            folder,
            method=self.method,
            tasks=self.tasks,
            fit_usage=self.fit_usage,
            settings={"parts": len(self.parts)},
        )

    @classmethod
    def load(cls, folder: Path) -> SeparateClassifier:
        from llmembed.methods import load

        _, _, settings, _ = saved.read(folder)
        parts = tuple(load(folder / f"part-{n}") for n in range(settings["parts"]))
        if any(getattr(part, "generator", None) is not None for part in parts):
            # Budgets and limits of whoever loads would not reach it there.
            raise ModelError(f"{folder}: a part asks a language model, which stands alone")
        return cls(parts=parts)


@dataclass(frozen=True, kw_only=True)
class _Named:
    """Tells metrics under the name of the task they belong to."""

    reporter: Reporter
    task: str

    def report(self, metrics: Mapping[str, float], *, step: int) -> None:
        named = {f"{self.task}/{name}": value for name, value in metrics.items()}
        self.reporter.report(named, step=step)


@dataclass(frozen=True, kw_only=True)
class Separate:
    """Fits ``each`` once for every task."""

    each: Method

    @property
    def name(self) -> str:
        return self.each.name

    @property
    def machinery_only(self) -> bool:
        return bool(getattr(self.each, "machinery_only", False))

    @property
    def settings(self) -> dict[str, Any]:
        return {**getattr(self.each, "settings", {}), "separate": True}

    def seeded(self, seed: int) -> Separate:
        return replace(self, each=self.each.seeded(seed))

    def fit(
        self,
        tasks: Sequence[Task],
        train: Examples,
        valid: Examples,
        runtime: Runtime,
        reporter: Reporter,
    ) -> SeparateClassifier:
        parts = [
            self.each.fit(
                [task],
                of_task(train, task),
                of_task(valid, task),
                runtime,
                _Named(reporter=reporter, task=task.name),
            )
            for task in tasks
        ]
        return SeparateClassifier(parts=tuple(parts))


def of_task(examples: Examples, task: Task) -> Examples:
    """``examples`` as they are when nothing but ``task`` is asked."""
    words = examples.words if task.kind == "tokens" else None
    labels = {task.name: examples.labels[task.name]}
    return Examples(texts=examples.texts, labels=labels, words=words)
