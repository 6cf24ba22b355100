"""``committee``: the mean of the probabilities of another method's fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from llmembed.contract import Classifier, Examples, Prediction, Reporter, Runtime, Task, Usage
from llmembed.methods import load, saved
from llmembed.methods.answers import decide
from llmembed.methods.settings import Fits


@dataclass(frozen=True, kw_only=True)
class CommitteeClassifier:
    method: ClassVar[str] = "committee"
    members: tuple[Classifier, ...]
    fit_usage: Usage

    @property
    def tasks(self) -> tuple[Task, ...]:
        return self.members[0].tasks

    @property
    def parameters_trained(self) -> int:
        return sum(member.parameters_trained for member in self.members)

    def predict(
        self, texts: Sequence[str], runtime: Runtime | None = None
    ) -> dict[str, Prediction]:
        told = [member.predict(texts, runtime) for member in self.members]
        return {
            task.name: decide(np.mean([t[task.name].scores for t in told], axis=0), task)
            for task in self.tasks
        }

    def save(self, folder: Path) -> None:
        for number, member in enumerate(self.members):
            member.save(folder / str(number))
        saved.write(
            folder,
            method=self.method,
            tasks=self.tasks,
            fit_usage=self.fit_usage,
            settings={"members": len(self.members)},
        )

    @classmethod
    def load(cls, folder: Path) -> CommitteeClassifier:
        _, usage, settings, _ = saved.read(folder)
        members = tuple(load(folder / str(n)) for n in range(settings["members"]))
        return cls(members=members, fit_usage=usage)


@dataclass(frozen=True, kw_only=True)
class Committee:
    deterministic: ClassVar[bool] = True
    fits: Fits
    name: str = "committee"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def seeded(self, seed: int) -> Committee:
        return self

    def fit(
        self,
        tasks: Sequence[Task],
        train: Examples,
        valid: Examples,
        runtime: Runtime,
        reporter: Reporter,
    ) -> CommitteeClassifier:
        members = tuple(self.fits().values())
        return CommitteeClassifier(members=members, fit_usage=members[0].fit_usage)
