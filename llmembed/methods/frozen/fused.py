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
from llmembed.contract import (
    Examples,
    Prediction,
    Reporter,
    Runtime,
    Silent,
    Task,
    Usage,
)
from llmembed.folds import CrossFitted, Folds, index_of
from llmembed.fusion import LEXICAL, Align, build_fusion
from llmembed.heads import HeadConfig
from llmembed.heads.trained import TrainedHead
from llmembed.heads.training import train_head
from llmembed.metering import Meter
from llmembed.methods import saved
from llmembed.methods.answers import check_kinds, decide, with_thresholds
from llmembed.methods.views import (
    OverViews,
    ViewReader,
    unless_unread,
    views_from_json,
    views_to_json,
)


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
        folds = Folds.of(train, valid)
        [found] = self.cross_fit(
            tasks, folds, runtime, reporter, seeds=(self.head.seed,)
        ).classifiers
        assert isinstance(found, FusedClassifier)
        return found

    def cross_fit(
        self,
        tasks: Sequence[Task],
        folds: Folds,
        runtime: Runtime,
        reporter: Reporter,
        *,
        seeds: Sequence[int] = (0,),
    ) -> CrossFitted:
        """A head for each fold, stopped by the texts left out; the last ones, on all texts, run for
        as many epochs as these needed in the median, under their mean temperature."""
        check_kinds("fused", tasks)
        reader, texts = ViewReader(views=self.views), folds.examples.texts
        read, extraction = reader.read(texts, runtime)
        with Meter() as meter:
            lexical = None
            views: dict[str, np.ndarray] = {**read}
            if self.lexical:
                from llmembed.fusion.lexical import LexicalView

                seen = texts if folds.refit else [texts[row] for row in folds.fitted(0)]
                lexical = LexicalView(width=self.lexical, seed=seeds[0]).fit(seen)
                views[LEXICAL] = lexical.transform(texts)
            heads = [
                self._head(
                    tasks,
                    views,
                    folds,
                    number,
                    replace(self.head, seed=seeds[number % len(seeds)]),
                    reporter if len(folds.held) == 1 else _OfFold(reporter, number),
                )
                for number in range(len(folds.held))
            ]
            left_out = _left_out(tasks, views, folds, heads)
            chosen = with_thresholds(tasks, folds.left_out, lambda task: left_out[task.name])
        usage = extraction + meter.usage
        last = [(head, Usage()) for head in heads]
        if folds.refit:
            last = [self._refitted(tasks, views, folds, heads, seed) for seed in seeds]
        classifiers = tuple(
            FusedClassifier(
                tasks=chosen,
                reader=reader,
                head=head,
                lexical=lexical,
                fit_usage=usage + own,
                chosen={"epochs": head.epochs},
            )
            for head, own in last
        )
        return CrossFitted(
            classifiers=classifiers,
            left_out=unless_unread(
                {task.name: decide(left_out[task.name], task) for task in chosen},
                read,
                folds.rows,
            ),
            shared=usage,
        )

    def _head(
        self,
        tasks: Sequence[Task],
        views: Mapping[str, np.ndarray],
        folds: Folds,
        number: int | None,
        config: HeadConfig,
        reporter: Reporter,
    ) -> TrainedHead:
        """The head of fold ``number``, or with None one of all texts."""
        fitted = np.arange(len(folds.examples)) if number is None else folds.fitted(number)
        held = folds.held[number or 0]
        fusion = build_fusion(
            self.fusion,
            {name: (rows.shape[1], rows.shape[2]) for name, rows in views.items()},
            sigma=self.sigma,
            width=self.width,
            align=self.align,
            dropout=self.align_dropout,
        )
        labels = folds.examples.labels
        return train_head(
            fusion,
            _taken(views, fitted),
            {name: values[fitted] for name, values in labels.items()},
            tasks,
            valid_views=_taken(views, held),
            valid_labels={name: values[held] for name, values in labels.items()},
            config=config,
            reporter=reporter,
        )

    def _refitted(
        self,
        tasks: Sequence[Task],
        views: Mapping[str, np.ndarray],
        folds: Folds,
        heads: Sequence[TrainedHead],
        seed: int,
    ) -> tuple[TrainedHead, Usage]:
        """One on all texts, and what that took. What the folds' heads say of texts left out is said
        of this one, too: its own validation texts are among those that it was trained on."""
        config = replace(self.head, seed=seed)
        if config.patience is not None:
            epochs = round(float(np.median([head.best_epoch for head in heads])))
            config = replace(config, epochs=max(1, epochs), patience=None)
        with Meter() as meter:
            head = self._head(tasks, views, folds, None, config, Silent())
        temperatures = np.exp(np.mean(np.log([each.temperatures for each in heads]), axis=0))
        metrics = {
            name: float(np.mean([each.metrics[name] for each in heads])) for name in head.metrics
        }
        told = replace(head, temperatures=tuple(temperatures.tolist()), metrics=metrics)
        return told, meter.usage


@dataclass(frozen=True)
class _OfFold:
    """Tells metrics under the number of the fold they belong to, from 1 on."""

    reporter: Reporter
    number: int

    def report(self, metrics: Mapping[str, float], *, step: int) -> None:
        named = {f"fold_{self.number + 1}/{name}": value for name, value in metrics.items()}
        self.reporter.report(named, step=step)


def _left_out(
    tasks: Sequence[Task],
    views: Mapping[str, np.ndarray],
    folds: Folds,
    heads: Sequence[TrainedHead],
) -> dict[str, np.ndarray]:
    """What each fold's head says of the texts left out of it: scores float32 (H, C) by task."""
    count = len(folds.examples)
    scores = {task.name: np.zeros((count, len(task.classes)), dtype=np.float32) for task in tasks}
    for held, head in zip(folds.held, heads, strict=True):
        for name, found in head.scores(_taken(views, held)).items():
            scores[name][held] = found
    return {name: found[folds.rows] for name, found in scores.items()}


def _taken(views: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    index = index_of(rows)
    return {name: view[index] for name, view in views.items()}
