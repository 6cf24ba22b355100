"""``centroid``: the class whose mean vector is nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from llmembed.backbones import View
from llmembed.contract import Examples, Prediction, Reporter, Runtime, Task, Usage
from llmembed.metering import Meter
from llmembed.methods import saved
from llmembed.methods.answers import check_kinds, decide
from llmembed.methods.views import OverViews, ViewReader, views_from_json, views_to_json


@dataclass(frozen=True, kw_only=True)
class CentroidClassifier(OverViews):
    method: ClassVar[str] = "centroid"
    tasks: tuple[Task, ...]
    centres: Mapping[str, np.ndarray]
    sharpness: float
    fit_usage: Usage

    @property
    def parameters_trained(self) -> int:
        return sum(centres.size for centres in self.centres.values())

    def predict_views(
        self, views: Mapping[str, np.ndarray], texts: Sequence[str]
    ) -> dict[str, Prediction]:
        rows = self.features_of_views(views, texts)
        found = {}
        for task in self.tasks:
            near = self.sharpness * rows @ self.centres[task.name].T
            if task.kind == "multi":
                scores = 1 / (1 + np.exp(self.sharpness * 0.6 - near))
            else:
                odds = np.exp(near - near.max(axis=1, keepdims=True, initial=-np.inf))
                scores = odds / odds.sum(axis=1, keepdims=True)
            found[task.name] = decide(scores.astype(np.float32), task)
        return found

    def features_of_views(
        self, views: Mapping[str, np.ndarray], texts: Sequence[str]
    ) -> np.ndarray:
        rows = np.asarray(views["L"], dtype=np.float32)
        return unit(rows.reshape(len(rows), rows.shape[1] * rows.shape[2]))

    def save(self, folder: Path) -> None:
        saved.write(
            folder,
            method=self.method,
            tasks=self.tasks,
            fit_usage=self.fit_usage,
            settings={"sharpness": self.sharpness, "views": views_to_json(self.reader.views)},
            arrays=dict(self.centres),
        )

    @classmethod
    def load(cls, folder: Path) -> CentroidClassifier:
        tasks, usage, settings, arrays = saved.read(folder)
        return cls(
            tasks=tasks,
            reader=ViewReader(views=views_from_json(settings["views"])),
            centres=arrays,
            sharpness=settings["sharpness"],
            fit_usage=usage,
        )


@dataclass(frozen=True, kw_only=True)
class Centroid:
    deterministic: ClassVar[bool] = True
    view: View
    sharpness: float = 20.0
    name: str = "centroid"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def seeded(self, seed: int) -> Centroid:
        return self

    def fit(
        self,
        tasks: Sequence[Task],
        train: Examples,
        valid: Examples,
        runtime: Runtime,
        reporter: Reporter,
    ) -> CentroidClassifier:
        check_kinds("centroid", tasks)
        reader = ViewReader(views={"L": self.view})
        views, extraction = reader.read(train.texts, runtime)
        with Meter() as meter:
            rows = np.asarray(views["L"], dtype=np.float32)
            rows = unit(rows.reshape(len(rows), -1))
            centres = {task.name: _centres(task, rows, train.labels[task.name]) for task in tasks}
        return CentroidClassifier(
            tasks=tuple(tasks),
            reader=reader,
            centres=centres,
            sharpness=self.sharpness,
            fit_usage=extraction + meter.usage,
        )


def _centres(task: Task, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(C, F); of a class without a row, the direction away from all."""
    found = []
    for number in range(len(task.classes)):
        own = rows[labels[:, number] if task.kind == "multi" else labels == number]
        found.append(own.mean(axis=0) if len(own) else -rows.mean(axis=0))
    return unit(np.array(found, dtype=np.float32))


def unit(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(lengths, 1e-12)).astype(np.float32)
