"""``probe``: logistic regression on one depth of one frozen backbone, inputs standardised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from llmembed.backbones import View
from llmembed.contract import (
    Prediction,
    Reporter,
    Runtime,
    Task,
    Usage,
)
from llmembed.folds import CrossFitted, Folds, index_of
from llmembed.metering import Meter
from llmembed.methods import saved
from llmembed.methods.answers import check_kinds
from llmembed.methods.by_folds import ByFolds
from llmembed.methods.frozen.logistic import (
    Linear,
    answers,
    cross_fit_linears,
    from_arrays,
    parameters_of,
    to_arrays,
)
from llmembed.methods.views import (
    OverViews,
    ViewReader,
    unless_unread,
    views_from_json,
    views_to_json,
)


@dataclass(frozen=True, kw_only=True)
class ProbeClassifier(OverViews):
    """Answers of one linear map per task over one view; ``mean`` and ``scale`` float32 (F,).
    ``chosen``: what validation chose."""

    method: ClassVar[str] = "probe"
    tasks: tuple[Task, ...]
    linears: Mapping[str, Linear]
    mean: np.ndarray
    scale: np.ndarray
    fit_usage: Usage
    chosen: Mapping[str, Any]

    @property
    def parameters_trained(self) -> int:
        return parameters_of(self.linears)

    def answer_views(
        self, views: Mapping[str, np.ndarray], texts: Sequence[str]
    ) -> dict[str, Prediction]:
        return answers(self.tasks, self.linears, self.features_of_views(views, texts))

    def features_of_views(
        self, views: Mapping[str, np.ndarray], texts: Sequence[str]
    ) -> np.ndarray:
        """The view, standardised, float32 (N, L·D)."""
        features: np.ndarray = (_flat(views) - self.mean) / self.scale
        return features

    def save(self, folder: Path) -> None:
        saved.write(
            folder,
            method=self.method,
            tasks=self.tasks,
            fit_usage=self.fit_usage,
            settings={"chosen": dict(self.chosen), "views": views_to_json(self.reader.views)},
            arrays={**to_arrays(self.linears), "mean": self.mean, "scale": self.scale},
        )

    @classmethod
    def load(cls, folder: Path) -> ProbeClassifier:
        tasks, usage, settings, arrays = saved.read(folder)
        return cls(
            tasks=tasks,
            reader=ViewReader(views=views_from_json(settings["views"])),
            linears=from_arrays(tasks, arrays),
            mean=arrays["mean"],
            scale=arrays["scale"],
            fit_usage=usage,
            chosen=settings["chosen"],
        )


@dataclass(frozen=True, kw_only=True)
class Probe(ByFolds):
    """Fits ``ProbeClassifier``. ``view``: what is read; usually one depth of one backbone.

    ``inverse_penalties``: the values of C of which the best on validation is kept.
    ``class_weights``: rows are weighted by the inverse of their class's share.
    """

    view: View
    inverse_penalties: Sequence[float] = (0.003, 0.03, 0.3)
    class_weights: bool = False
    name: str = "probe"
    deterministic: ClassVar[bool] = True

    def seeded(self, seed: int) -> Probe:
        return self

    def cross_fit(
        self,
        tasks: Sequence[Task],
        folds: Folds,
        runtime: Runtime,
        reporter: Reporter,
        *,
        seeds: Sequence[int] = (0,),
    ) -> CrossFitted:
        check_kinds("probe", tasks)
        reader = ViewReader(views={"L": self.view})
        views, extraction = reader.read(folds.examples.texts, runtime)
        with Meter() as meter:
            features = _flat(views)
            seen = features if folds.refit else features[index_of(folds.fitted(0))]
            mean, scale = seen.mean(axis=0), np.maximum(seen.std(axis=0), 1e-6)
            chosen_tasks, linears, chosen, left_out = cross_fit_linears(
                tasks,
                (features - mean) / scale,
                folds,
                self.inverse_penalties,
                class_weights=self.class_weights,
            )
        classifier = ProbeClassifier(
            tasks=chosen_tasks,
            reader=reader,
            linears=linears,
            mean=mean,
            scale=scale,
            fit_usage=extraction + meter.usage,
            chosen={"inverse_penalty": chosen},
        )
        return CrossFitted(
            classifiers=(classifier,),
            left_out=unless_unread(left_out, views, folds.rows),
            shared=classifier.fit_usage,
        )


def _flat(views: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N, L, D) -> float32 (N, L·D)."""
    rows = views["L"]
    return np.asarray(rows, dtype=np.float32).reshape(len(rows), math.prod(rows.shape[1:]))
