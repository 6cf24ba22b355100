"""``fused``: frozen embeddings of several depths and backbones, fused, with a small head.

LLMEmbed (ACL 2024). With the fusion ``last`` over one encoder and the head recipe ``paper`` it is
the paper's BERT and RoBERTa baseline. A lexical view (TF-IDF reduced by SVD, fitted on the training
part) can be fused like any other; that is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from llmembed.backbones import View
from llmembed.contract import Examples, Prediction, Reporter, Runtime, Task, Usage
from llmembed.fusion import LEXICAL, Align, build_fusion
from llmembed.heads import HeadConfig
from llmembed.heads.trained import TrainedHead
from llmembed.heads.training import train_head
from llmembed.metering import Meter
from llmembed.methods import saved
from llmembed.methods.answers import check_kinds, decide, with_thresholds
from llmembed.methods.views import OverViews, ViewReader, views_from_json, views_to_json


@dataclass(frozen=True, kw_only=True)
class FusedClassifier(OverViews):
    """Views of the texts, fused and answered by a trained head; ``lexical`` may add one more.
    ``chosen``: what validation chose."""

    method: ClassVar[str] = "fused"
    tasks: tuple[Task, ...]
    head: TrainedHead
    lexical: Any = None
    fit_usage: Usage = field(default_factory=Usage)
    chosen: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parameters_trained(self) -> int:
        return self.head.parameters_trained

    def answer_views(
        self, views: Mapping[str, np.ndarray], texts: Sequence[str]
    ) -> dict[str, Prediction]:
        if self.lexical is not None:
            views = {**views, LEXICAL: self.lexical.transform(texts)}
        scores = self.head.scores(views)
        return {task.name: decide(scores[task.name], task) for task in self.tasks}

    def features_of_views(
        self, views: Mapping[str, np.ndarray], texts: Sequence[str]
    ) -> np.ndarray:
        """The fused features, standardised, float32 (N, F)."""
        if self.lexical is not None:
            views = {**views, LEXICAL: self.lexical.transform(texts)}
        return self.head.features(views)

    def save(self, folder: Path) -> None:
        self.head.save(folder / "head")
        if self.lexical is not None:
            self.lexical.save(folder / "lexical")
        saved.write(
            folder,
            method=self.method,
            tasks=self.tasks,
            fit_usage=self.fit_usage,
            settings={"chosen": dict(self.chosen), "views": views_to_json(self.reader.views)},
        )

    @classmethod
    def load(cls, folder: Path) -> FusedClassifier:
        from llmembed.fusion.lexical import LexicalView

        tasks, usage, settings, _ = saved.read(folder)
        views = views_from_json(settings["views"])
        lexical = folder / "lexical"
        return cls(
            tasks=tasks,
            reader=ViewReader(views=views),
            head=TrainedHead.load(folder / "head", build_fusion),
            lexical=LexicalView.load(lexical) if lexical.is_dir() else None,
            fit_usage=usage,
            chosen=settings["chosen"],
        )


@dataclass(frozen=True, kw_only=True)
class Fused:
    """Fits ``FusedClassifier``.

    ``views``: name -> what is read; ``L`` is the primary one, of several depths. ``fusion``: a name
    of ``llmembed.fusion.FUSIONS``. ``sigma``, ``width``, ``align`` and ``align_dropout`` matter to
    its co-occurrence fusions. ``lexical``: width of the lexical view, 0 for none.
    """

    views: Mapping[str, View]
    fusion: str = "avg"
    sigma: float = 0.2
    width: int | None = None
    align: Align = "relu"
    align_dropout: float = 0.5
    lexical: int = 0
    head: HeadConfig = field(default_factory=HeadConfig)
    name: str = "fused"

    def seeded(self, seed: int) -> Fused:
        return replace(self, head=replace(self.head, seed=seed))

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for, seed apart."""
        head = {key: value for key, value in self.head.to_json().items() if key != "seed"}
        return {
            "fusion": self.fusion,
            "sigma": self.sigma,
            "width": self.width,
            "align": self.align,
            "align_dropout": self.align_dropout,
            "lexical": self.lexical,
            "head": head,
            "views": {
                name: f"{view.backbone.label} {' '.join(map(str, view.reads))}"
                for name, view in self.views.items()
            },
        }

    def fit(
        self,
        tasks: Sequence[Task],
        train: Examples,
        valid: Examples,
        runtime: Runtime,
        reporter: Reporter,
    ) -> FusedClassifier:
        check_kinds("fused", tasks)
        reader = ViewReader(views=self.views)
        both, extraction = reader.read([*train.texts, *valid.texts], runtime)
        views = {name: rows[: len(train)] for name, rows in both.items()}
        valid_views = {name: rows[len(train) :] for name, rows in both.items()}
        with Meter() as meter:
            lexical = None
            if self.lexical:
                from llmembed.fusion.lexical import LexicalView

                lexical = LexicalView(width=self.lexical, seed=self.head.seed).fit(train.texts)
                views[LEXICAL] = lexical.transform(train.texts)
                valid_views[LEXICAL] = lexical.transform(valid.texts)
            fusion = build_fusion(
                self.fusion,
                {name: (rows.shape[1], rows.shape[2]) for name, rows in views.items()},
                sigma=self.sigma,
                width=self.width,
                align=self.align,
                dropout=self.align_dropout,
            )
            head = train_head(
                fusion,
                views,
                train.labels,
                tasks,
                valid_views=valid_views,
                valid_labels=valid.labels,
                config=self.head,
                reporter=reporter,
            )
            chosen = with_thresholds(tasks, valid, lambda task: head.scores(valid_views)[task.name])
        return FusedClassifier(
            tasks=chosen,
            reader=reader,
            head=head,
            lexical=lexical,
            fit_usage=extraction + meter.usage,
            chosen={"epochs": head.epochs},
        )
