"""``ensemble``: the experiment's other fits answer together.

They are weighted by what they answered to texts that they had not seen: greedily (Caruana et al.
2004) or by a logistic regression (stacking).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from llmembed.contract import (
    Classifier,
    Examples,
    OverBackbones,
    Prediction,
    Reporter,
    Runtime,
    Task,
    Usage,
)
from llmembed.errors import ConfigError
from llmembed.folds import CrossFitted, Folds
from llmembed.metering import Meter
from llmembed.methods.answers import check_kinds
from llmembed.methods.combined.ensemble_classifier import (
    MOST,
    EnsembleClassifier,
    Member,
    ensemble,
    scores_of,
    together,
)
from llmembed.methods.combined.weights import How, Weights, left_out_scores, quality, weigh
from llmembed.methods.settings import LeftOut, Source
from llmembed.methods.views import ViewReader
from llmembed.metrics.deciding import with_thresholds

PARTS = 5
"""Into which the texts left out are cut, to judge weights on texts that did not choose them."""


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Fits ``EnsembleClassifier``. ``sources``: name -> the fits of a method; several seeds of one
    share its weight. ``how``: ``best`` is the better of ``greedy`` and ``stacked``."""

    deterministic: ClassVar[bool] = True
    sources: Mapping[str, Source]
    how: Literal["best", "greedy", "stacked", "mean"] = "best"
    name: str = "ensemble"

    def seeded(self, seed: int) -> Ensemble:
        return self

    @property
    def machinery_only(self) -> bool:
        """Whether a member runs on stand-in weights, so that no figure says anything."""
        return any(source.machinery_only for source in self.sources.values())

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for."""
        return {"members": list(self.sources), "how": self.how}

    def fit(
        self,
        tasks: Sequence[Task],
        train: Examples,
        valid: Examples,
        runtime: Runtime,
        reporter: Reporter,
    ) -> EnsembleClassifier:
        """By what the members, fitted before on ``train``, answered to ``valid``."""
        folds = Folds.of(train, valid)
        [found] = self.cross_fit(tasks, folds, runtime, reporter).classifiers
        assert isinstance(found, EnsembleClassifier)
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
        """By what the members answered to texts left out of their own fits. One that did not come
        to its end is left out, with a note."""
        check_kinds(self.name, tasks)
        left_out: dict[str, LeftOut] = {}
        missing = []
        for name, source in self.sources.items():
            try:
                left_out[name] = source.left_out()
            except ConfigError:
                missing.append(name)
        if not left_out:
            raise ConfigError(f"{self.name}: none of its members came to its end")
        notes = (f"without {', '.join(missing)}, which did not come to an end",) if missing else ()
        return self._joined(tasks, folds, runtime, left_out, notes)

    def _joined(
        self,
        tasks: Sequence[Task],
        folds: Folds,
        runtime: Runtime,
        left_out: Mapping[str, LeftOut],
        notes: tuple[str, ...],
    ) -> CrossFitted:
        with Meter() as meter:
            rows = _common(left_out, folds)
            truth = folds.examples.select(rows).labels
            parts = [np.arange(start, len(rows), PARTS) for start in range(PARTS)]
            weights: dict[str, Weights] = {}
            answers: dict[str, Prediction] = {}
            chosen: dict[str, Any] = {}
            decided: list[Task] = []
            for task in tasks:
                own = [_taken(each, task, rows) for each in left_out.values()]
                scores = scores_of(task, own)
                ways: Sequence[How] = ("greedy", "stacked")
                if self.how != "best":
                    ways = (self.how,)
                tried = {
                    way: left_out_scores(task, scores, truth[task.name], way, parts) for way in ways
                }
                way = max(tried, key=lambda way: quality(task, tried[way], truth[task.name]))
                weights[task.name] = weigh(task, scores, truth[task.name], way)
                told = with_thresholds(task, truth[task.name], tried[way])
                decided.append(told)
                answers[task.name] = together(told, own, tried[way])
                chosen[task.name] = {
                    "how": way,
                    "weights": {
                        name: round(float(weight), 4)
                        for name, weight in zip(
                            left_out, weights[task.name].of_members, strict=True
                        )
                    },
                }
        members, spread = self._members(tasks, left_out, weights)
        shared = {name: each.shared for name, each in left_out.items()}
        usage = _fit_usage(members, shared, folds, runtime) + meter.usage
        classifier = ensemble(
            tasks=tuple(decided),
            members=members,
            weights=spread,
            fit_usage=usage,
            chosen=chosen,
            notes=notes,
        )
        return CrossFitted(classifiers=(classifier,), left_out=answers, shared=usage, rows=rows)

    def _members(
        self,
        tasks: Sequence[Task],
        left_out: Mapping[str, LeftOut],
        weights: Mapping[str, Weights],
    ) -> tuple[tuple[Member, ...], dict[str, Weights]]:
        """The classifiers of those that have a weight in some task, and each task's weights shared
        out over a method's seeds."""
        members: list[Member] = []
        shares: list[tuple[int, float]] = []
        for number, name in enumerate(left_out):
            if not any(abs(weights[task.name].of_members[number]) > 0 for task in tasks):
                continue
            fits = self.sources[name].fits()
            for each in fits.values():
                check_member(name, each)
            members += [Member(name=name, classifier=each) for each in fits.values()]
            shares += [(number, 1 / len(fits))] * len(fits)
        if len(members) > MOST:
            raise ConfigError(f"{self.name}: {len(members)} fits are members; {MOST} are the most")
        index = [number for number, _ in shares]
        share = np.array([each for _, each in shares], dtype=np.float32)
        spread = {
            task: Weights(
                of_members=each.of_members[index] * share,
                bias=each.bias,
                of_logs=each.of_logs,
                temperature=each.temperature,
            )
            for task, each in weights.items()
        }
        return tuple(members), spread


def mean_of(name: str, classifiers: Sequence[Classifier], shared: Usage) -> EnsembleClassifier:
    """Of several seeds of one method: their probabilities, all alike. ``shared``: what each one's
    ``fit_usage`` holds and was done once."""
    first = classifiers[0]
    even = np.full(len(classifiers), 1 / len(classifiers), dtype=np.float32)
    return ensemble(
        tasks=first.tasks,
        members=tuple(Member(name=name, classifier=each) for each in classifiers),
        weights={
            task.name: Weights(
                of_members=even,
                bias=np.zeros(len(task.classes), dtype=np.float32),
                of_logs=False,
            )
            for task in first.tasks
        },
        fit_usage=_own_usage(classifiers, shared) + shared,
        chosen={"seeds": len(classifiers)},
        notes=(),
    )


def check_member(name: str, classifier: Classifier) -> None:
    """Raise ``ConfigError`` for one that could be saved as a member and not be loaded again."""
    if isinstance(classifier, EnsembleClassifier):
        raise ConfigError(f"member {name!r} is an ensemble itself: name its members instead")
    if getattr(classifier, "generator", None) is not None:
        raise ConfigError(
            f"member {name!r} asks a language model, whose budgets and limits are its own: leave "
            "it out"
        )


def _common(left_out: Mapping[str, LeftOut], folds: Folds) -> np.ndarray:
    """The rows that every member was asked without having seen them."""
    rows = folds.rows
    for each in left_out.values():
        rows = np.intersect1d(rows, each.rows)
    if not len(rows):
        raise ConfigError("the members of an ensemble were never asked about the same texts")
    return rows


def _taken(left_out: LeftOut, task: Task, rows: np.ndarray) -> Prediction:
    """The answers to ``rows``, all of which were answered."""
    answer = left_out.answers[task.name]
    places = np.searchsorted(left_out.rows, rows)
    if len(rows) == len(left_out.rows):
        return answer
    words = None
    if answer.offsets is not None:
        pieces = [np.arange(answer.offsets[p], answer.offsets[p + 1]) for p in places]
        words = np.concatenate(pieces)
        lengths = answer.offsets[places + 1] - answer.offsets[places]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    index = places if words is None else words
    return Prediction(
        labels=answer.labels[index],
        scores=None if answer.scores is None else answer.scores[index],
        invalid=answer.invalid[places],
        offsets=None if words is None else offsets,
        unanswered=None if answer.unanswered is None else answer.unanswered[places],
    )


def _own_usage(classifiers: Sequence[Classifier], shared: Usage) -> Usage:
    """What was done for each of the classifiers alone."""
    return sum((each.fit_usage + shared.scaled(-1) for each in classifiers), Usage())


def _fit_usage(
    members: Sequence[Member], shared: Mapping[str, Usage], folds: Folds, runtime: Runtime
) -> Usage:
    """What all members took; what seeds share, and a backbone's pass over the texts, once."""
    total = Usage()
    passes: dict[str, Usage] = {}
    for name in dict.fromkeys(member.name for member in members):
        classifiers = [member.classifier for member in members if member.name == name]
        total += _own_usage(classifiers, shared[name]) + shared[name]
        own: set[str] = set()
        if isinstance(classifiers[0], OverBackbones):
            for view in classifiers[0].backbones.values():
                fingerprint = view.backbone.fingerprint()
                own.add(fingerprint)
                if fingerprint not in passes:
                    reader = ViewReader(views={"L": view})
                    _, passes[fingerprint] = reader.read(folds.examples.texts, runtime)
        for fingerprint in own:
            total += passes[fingerprint].scaled(-1)
    return sum(passes.values(), total)
