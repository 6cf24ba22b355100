"""``kernel``: one closed-form ridge over a kernel of frozen reads joined with one of terms.

All reads of all views stand side by side in one kernel, so that every depth is used and none has to
be chosen; beside it, at a share that the data choose, a linear kernel of words, their runs and
characters. No epochs, no learning rate, no seed: a linear system, answers to left-out rows in
closed form, and probabilities calibrated on these.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from llmembed.backbones import View
from llmembed.contract import (
    Prediction,
    Reporter,
    Runtime,
    Task,
    Usage,
)
from llmembed.errors import ModelError, UnsupportedError
from llmembed.folds import CrossFitted, Folds
from llmembed.fusion import build_fusion
from llmembed.heads.ridge import Split
from llmembed.metering import Meter
from llmembed.methods import saved
from llmembed.methods.answers import check_kinds, decide, with_thresholds
from llmembed.methods.by_folds import ByFolds
from llmembed.methods.frozen.joint import Joint
from llmembed.methods.frozen.joint_fit import JointFit, fit_joint
from llmembed.methods.views import (
    OverViews,
    ViewReader,
    unless_unread,
    views_from_json,
    views_to_json,
)

TERMS = "terms.json"


@dataclass(frozen=True, kw_only=True)
class KernelClassifier:
    """Answers of one joint ridge per task, over terms alone; ``KernelOverBackbones`` over views,
    too. ``fusion``: how views become features, None: side by side. ``chosen``: what left-out rows
    chose."""

    method: ClassVar[str] = "kernel"
    tasks: tuple[Task, ...]
    joint: Joint
    fit_usage: Usage
    chosen: Mapping[str, Any]
    fusion: str | None = None

    @property
    def parameters_trained(self) -> int:
        return self.joint.parameters

    @property
    def views(self) -> Mapping[str, View]:
        """What is read of a text beside its terms."""
        return {}

    def predict(
        self, texts: Sequence[str], runtime: Runtime | None = None
    ) -> dict[str, Prediction]:
        return self.answer_views({}, texts)

    def answer_views(
        self, views: Mapping[str, np.ndarray], texts: Sequence[str]
    ) -> dict[str, Prediction]:
        scores = self.joint.scores(self._features(views, len(texts)), texts)
        return {task.name: decide(scores[task.name], task) for task in self.tasks}

    def _features(self, views: Mapping[str, np.ndarray], count: int) -> np.ndarray:
        return features_of(views, tuple(self.views), count, self.fusion)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        settings, arrays = self.joint.to_parts()
        if self.joint.terms is not None:
            terms = json.dumps(self.joint.terms.to_json(), ensure_ascii=False)
            (folder / TERMS).write_text(terms + "\n", encoding="utf-8")
        saved.write(
            folder,
            method=self.method,
            tasks=self.tasks,
            fit_usage=self.fit_usage,
            settings={
                "chosen": dict(self.chosen),
                "views": views_to_json(self.views),
                "joint": settings,
                "fusion": self.fusion,
            },
            arrays=arrays,
        )

    @classmethod
    def load(cls, folder: Path) -> KernelClassifier:
        tasks, usage, settings, arrays = saved.read(folder)
        path = folder / TERMS
        try:
            terms = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
            return kernel_classifier(
                tasks=tasks,
                views=views_from_json(settings["views"]),
                joint=Joint.from_parts(tasks, settings["joint"], arrays, terms),
                fit_usage=usage,
                chosen=settings["chosen"],
                fusion=None if settings["fusion"] is None else str(settings["fusion"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(f"no readable kernel in {folder}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class KernelOverBackbones(KernelClassifier, OverViews):
    """``contract.OverBackbones``."""

    def predict(
        self, texts: Sequence[str], runtime: Runtime | None = None
    ) -> dict[str, Prediction]:
        return OverViews.predict(self, texts, runtime)

    @property
    def views(self) -> Mapping[str, View]:
        return self.reader.views

    def features_of_views(
        self, views: Mapping[str, np.ndarray], texts: Sequence[str]
    ) -> np.ndarray:
        """All reads, standardised, float32 (N, F)."""
        return (self._features(views, len(texts)) - self.joint.mean) / self.joint.scale


def kernel_classifier(views: Mapping[str, View], **parts: Any) -> KernelClassifier:
    """Over backbones, if it reads a view."""
    if not views:
        return KernelClassifier(**parts)
    return KernelOverBackbones(**parts, reader=ViewReader(views=views))


@dataclass(frozen=True, kw_only=True)
class Kernel(ByFolds):
    """Fits ``KernelClassifier``.

    ``views``: name -> what is read; their reads stand side by side, whatever their names, or as
    ``fusion`` says, one without parameters. ``joint``: how the kernels are joined and what left-out
    rows choose from.
    """

    deterministic: ClassVar[bool] = True
    views: Mapping[str, View]
    joint: JointFit
    fusion: str | None = None
    name: str = "kernel"

    def seeded(self, seed: int) -> Kernel:
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for."""
        return {
            **self.joint.to_json(),
            "fusion": self.fusion,
            "views": {
                name: f"{view.backbone.label} {' '.join(map(str, view.reads))}"
                for name, view in self.views.items()
            },
        }

    def cross_fit(
        self,
        tasks: Sequence[Task],
        folds: Folds,
        runtime: Runtime,
        reporter: Reporter,
        *,
        seeds: Sequence[int] = (0,),
    ) -> CrossFitted:
        check_kinds(self.name, tasks)
        reader, texts = ViewReader(views=self.views), folds.examples.texts
        views, extraction = reader.read(texts, runtime)
        with Meter() as meter:
            fitted = fit_joint(
                tasks,
                features_of(views, tuple(self.views), len(texts), self.fusion),
                texts,
                folds.examples.labels,
                [
                    Split(fitted=folds.fitted(number), held=held)
                    for number, held in enumerate(folds.held)
                ],
                self.joint,
                refit=folds.refit,
            )
            left_out = {task.name: fitted.left_out[task.name][folds.rows] for task in tasks}
            chosen = with_thresholds(tasks, folds.left_out, lambda task: left_out[task.name])
        classifier = kernel_classifier(
            views=self.views,
            tasks=chosen,
            joint=fitted.joint,
            fit_usage=extraction + meter.usage,
            chosen=fitted.chosen,
            fusion=self.fusion,
        )
        return CrossFitted(
            classifiers=(classifier,),
            left_out=unless_unread(
                {task.name: decide(left_out[task.name], task) for task in chosen},
                views,
                folds.rows,
            ),
            shared=extraction + meter.usage,
        )


def features_of(
    views: Mapping[str, np.ndarray], order: Sequence[str], count: int, fusion: str | None
) -> np.ndarray:
    """Views (N, L, D) -> features float32 (N, F): side by side in this order, or fused."""
    if not order:
        return np.zeros((count, 0), dtype=np.float32)
    rows = {name: np.asarray(views[name], dtype=np.float32) for name in order}
    if fusion is None:
        flat = [each.reshape(count, math.prod(each.shape[1:])) for each in rows.values()]
        return np.concatenate(flat, axis=1)
    shapes = {name: (each.shape[1], each.shape[2]) for name, each in rows.items()}
    module = build_fusion(fusion, shapes)
    if module.has_parameters:
        raise UnsupportedError(
            f"fusion {fusion!r} is trained with its head, which a kernel is not: take one that "
            "only joins views, such as concat_b_r"
        )
    with torch.inference_mode():
        fused = module({n: torch.from_numpy(r) for n, r in rows.items()})
    found: np.ndarray = fused.numpy()
    return found
