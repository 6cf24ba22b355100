"""How a classifier over frozen backbones gets its views: from the store, or in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from llmembed.backbones import Backbone, BackboneSpec, View
from llmembed.contract import Prediction, Runtime, Usage
from llmembed.metering import Meter

_LAST = "last usage"


@dataclass(frozen=True, kw_only=True)
class ViewReader:
    """Reads named views of texts; one pass over a text per backbone, however many views it has."""

    views: Mapping[str, View]
    _loaded: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def read(
        self, texts: Sequence[str], runtime: Runtime | None
    ) -> tuple[dict[str, np.ndarray], Usage]:
        """View name -> (N, L, D), and what the embeddings took, cached ones included."""
        rows: dict[str, np.ndarray] = {}
        usage = Usage()
        for spec in self.backbones():
            if runtime is None:
                model = self._model(spec)
                rows[spec.fingerprint()] = model.embed(model.tokeniser(list(texts)))
            else:
                from llmembed.embeddings import embed

                embedded = embed(spec, texts, runtime)
                rows[spec.fingerprint()] = embedded.vectors
                usage += embedded.usage
        return {
            name: take_view(rows[v.backbone.fingerprint()], v) for name, v in self.views.items()
        }, usage

    @contextmanager
    def metered(
        self, texts: Sequence[str], runtime: Runtime | None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Views of ``texts`` for one ``predict``; ``last_usage`` then holds what it all took.
        Embeddings made by workers, now or earlier, count instead of the waiting for them."""
        if runtime is None:
            before = self._tokens_read()
            with Meter() as meter:
                yield self.read(texts, None)[0]
            self._loaded[_LAST] = meter.usage + Usage(tokens=self._tokens_read() - before)
            return
        views, usage = self.read(texts, runtime)
        with Meter() as meter:
            yield views
        self._loaded[_LAST] = usage + meter.usage

    @property
    def last_usage(self) -> Usage:
        """What the last ``metered`` reading and the work inside it took."""
        return self._loaded.get(_LAST, Usage())  # type: ignore[no-any-return]

    def _tokens_read(self) -> int:
        return sum(model.work.tokens for key, model in self._loaded.items() if key != _LAST)

    def backbones(self) -> list[BackboneSpec]:
        """The distinct backbones behind the views."""
        return list({v.backbone.fingerprint(): v.backbone for v in self.views.values()}.values())

    def _model(self, spec: BackboneSpec) -> Backbone:
        key = spec.fingerprint()
        if key not in self._loaded:
            self._loaded[key] = Backbone(spec)
        return self._loaded[key]  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class OverViews:
    """Base of the classifiers over frozen backbones: ``contract.OverBackbones``."""

    reader: ViewReader

    @property
    def backbones(self) -> Mapping[str, View]:
        return self.reader.views

    @property
    def predict_usage(self) -> Usage:
        """What the last ``predict`` took, the embeddings it read included."""
        return self.reader.last_usage

    def predict(
        self, texts: Sequence[str], runtime: Runtime | None = None
    ) -> dict[str, Prediction]:
        with self.reader.metered(texts, runtime) as views:
            return self.predict_views(views, texts)

    def predict_views(
        self, views: Mapping[str, np.ndarray], texts: Sequence[str]
    ) -> dict[str, Prediction]:
        """``views``: name -> (N, L, D). A text of which nothing could be read gets no answer."""
        unread = unread_rows(views)
        if not unread.any():
            return self.answer_views(views, texts)
        blank = {}
        for name, rows in views.items():
            blank[name] = np.array(rows, dtype=np.float32)
            blank[name][unread] = 0
        return {
            task: without_answer(prediction, unread)
            for task, prediction in self.answer_views(blank, texts).items()
        }

    def answer_views(
        self, views: Mapping[str, np.ndarray], texts: Sequence[str]
    ) -> dict[str, Prediction]:
        """As ``predict_views``, of texts that could all be read."""
        raise NotImplementedError

    def features(self, texts: Sequence[str]) -> np.ndarray:
        """What the head sees of ``texts``, float32 (N, F), read in this process."""
        return self.features_of_views(self.reader.read(texts, None)[0], texts)

    def features_of_views(
        self, views: Mapping[str, np.ndarray], texts: Sequence[str]
    ) -> np.ndarray:
        """What the head sees, float32 (N, F). ``views``: name -> (N, L, D)."""
        raise NotImplementedError


def take_view(rows: np.ndarray, view: View) -> np.ndarray:
    """Of a backbone's rows what a view names, (N, R, D) -> (N, L, D); a slice, not a copy, where
    the view's reads stand side by side."""
    indices = list(view.indices())
    if indices == list(range(indices[0], indices[0] + len(indices))):
        return rows[:, indices[0] : indices[0] + len(indices)]
    return rows[:, indices]


def unread_rows(views: Mapping[str, np.ndarray]) -> np.ndarray:
    """bool (N,): texts whose vectors are not finite, or all 0 as a store keeps those."""
    found = np.zeros(len(next(iter(views.values()))), dtype=np.bool_)
    for rows in views.values():
        first = rows[:, 0]
        found |= ~first.any(axis=-1)
        # A store holds finite ones alone; what was computed just now may be anything.
        if not isinstance(rows, np.memmap):
            found |= ~np.isfinite(rows).all(axis=(1, 2))
    return found


def unless_unread(
    answers: Mapping[str, Prediction], views: Mapping[str, np.ndarray], rows: np.ndarray
) -> dict[str, Prediction]:
    """``answers`` to the texts at ``rows`` of ``views``, none to those that could not be read."""
    if not views:
        return dict(answers)
    unread = unread_rows(views)[rows]
    if not unread.any():
        return dict(answers)
    return {task: without_answer(answer, unread) for task, answer in answers.items()}


def without_answer(prediction: Prediction, rows: np.ndarray) -> Prediction:
    """``prediction`` with no answer, and scores of 0, for ``rows``, bool (N,)."""
    labels, scores = prediction.labels.copy(), prediction.scores
    labels[rows] = False if labels.ndim == 2 else -1
    if scores is not None:
        scores = scores.copy()
        scores[rows] = 0
    return replace(prediction, labels=labels, scores=scores, invalid=prediction.invalid | rows)


def views_to_json(views: Mapping[str, View]) -> dict[str, Any]:
    return {name: view.to_json() for name, view in views.items()}


def views_from_json(data: Mapping[str, Any]) -> dict[str, View]:
    return {name: View.from_json(view) for name, view in data.items()}
