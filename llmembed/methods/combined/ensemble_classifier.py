"""What an ensemble answers: its members' probabilities, weighted.

Members over frozen backbones share them: one pass over a text, however many members read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from llmembed.backbones import View
from llmembed.contract import Classifier, OverBackbones, Prediction, Runtime, Task, Usage
from llmembed.errors import ModelError
from llmembed.metering import Meter
from llmembed.methods import saved
from llmembed.methods.answers import decide
from llmembed.methods.combined.weights import Weights
from llmembed.methods.views import ViewReader, views_to_json

FOLDERS = "member-{}"


@dataclass(frozen=True, kw_only=True)
class Member:
    """One classifier of an ensemble; ``name`` is its method's in the experiment."""

    name: str
    classifier: Classifier


@dataclass(frozen=True, kw_only=True)
class EnsembleClassifier:
    """``weights``: by task, of the members in order. ``chosen``: what texts left out chose."""

    method: ClassVar[str] = "ensemble"
    tasks: tuple[Task, ...]
    members: tuple[Member, ...]
    weights: Mapping[str, Weights]
    fit_usage: Usage
    chosen: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    _told: dict[str, Usage] = field(default_factory=dict, compare=False, repr=False)

    @property
    def parameters_trained(self) -> int:
        return sum(member.classifier.parameters_trained for member in self.members)

    @property
    def predict_usage(self) -> Usage:
        """What the last ``predict`` took, members that read backbones together."""
        return self._told.get("predict", Usage())

    @property
    def memory_bytes(self) -> int:
        return sum(int(getattr(m.classifier, "memory_bytes", 0)) for m in self.members)

    @property
    def kept_runs(self) -> tuple[str, ...]:
        return tuple(run for m in self.members for run in getattr(m.classifier, "kept_runs", ()))

    def release(self) -> None:
        """Give back what the members hold in this process."""
        for member in self.members:
            if hasattr(member.classifier, "release"):
                member.classifier.release()

    def predict(
        self, texts: Sequence[str], runtime: Runtime | None = None
    ) -> dict[str, Prediction]:
        answers, usage = [], Usage()
        for member in self.members:
            answer, took = metered(member.classifier, texts, runtime)
            answers.append(answer)
            usage += took
        with Meter() as meter:
            found = self.joined(answers)
        self._told["predict"] = usage + meter.usage
        return found

    def joined(self, answers: Sequence[Mapping[str, Prediction]]) -> dict[str, Prediction]:
        """The members' answers to the same texts, in their order, as one."""
        found = {}
        for task in self.tasks:
            own = [answer[task.name] for answer in answers]
            scores = self.weights[task.name].scores(scores_of(task, own), task.kind)
            found[task.name] = together(task, own, scores)
        return found

    def save(self, folder: Path) -> None:
        """Each member in a folder of its own, ``member-0`` and so on."""
        for number, member in enumerate(self.members):
            member.classifier.save(folder / FOLDERS.format(number))
        saved.write(
            folder,
            method=self.method,
            tasks=self.tasks,
            fit_usage=self.fit_usage,
            settings={
                "members": [member.name for member in self.members],
                "weights": {task: each.to_json() for task, each in self.weights.items()},
                "chosen": dict(self.chosen),
                **self._said(),
            },
        )

    def _said(self) -> dict[str, Any]:
        """What the manifest says beside members and weights."""
        return {}

    @classmethod
    def load(cls, folder: Path) -> EnsembleClassifier:
        from llmembed.methods import load, manifest_of

        tasks, usage, settings, _ = saved.read(folder)
        try:
            names = [str(name) for name in settings["members"]]
            told = settings["weights"]
            weights = {task.name: Weights.from_json(told[task.name]) for task in tasks}
            chosen = dict(settings["chosen"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"no readable ensemble in {folder}: {error}") from error
        if not 1 <= len(names) <= MOST:
            raise ModelError(f"{folder}: an ensemble of {len(names)} members; 1 to {MOST} may be")
        for task in tasks:
            own = weights[task.name]
            if own.of_members.shape != (len(names),) or own.bias.shape != (len(task.classes),):
                raise ModelError(f"{folder}: weights, members and classes do not fit")
        folders = [folder / FOLDERS.format(number) for number in range(len(names))]
        for each in folders:
            if manifest_of(each)["method"] == cls.method:
                raise ModelError(f"{each}: a member is an ensemble itself")
        members = []
        for name, each in zip(names, folders, strict=True):
            classifier = load(each)
            if getattr(classifier, "generator", None) is not None:
                # Budgets and limits of whoever loads would not reach it there.
                raise ModelError(f"{each}: a member asks a language model, which stands alone")
            classes = [(task.name, task.classes) for task in classifier.tasks]
            if classes != [(task.name, task.classes) for task in tasks]:
                raise ModelError(f"{each}: a member answers other tasks")
            members.append(Member(name=name, classifier=classifier))
        return ensemble(
            tasks=tasks,
            members=tuple(members),
            weights=weights,
            fit_usage=usage,
            chosen=chosen,
            notes=(),
        )


MOST = 100
"""Members of an ensemble."""


@dataclass(frozen=True, kw_only=True)
class EnsembleOverBackbones(EnsembleClassifier):
    """An ensemble some of whose members read frozen backbones: ``contract.OverBackbones``. A view
    that several read is one. ``names``: of each member, own name -> name among the reader's."""

    reader: ViewReader
    names: tuple[Mapping[str, str], ...]

    @property
    def backbones(self) -> Mapping[str, View]:
        return self.reader.views

    def predict(
        self, texts: Sequence[str], runtime: Runtime | None = None
    ) -> dict[str, Prediction]:
        others: dict[int, dict[str, Prediction]] = {}
        usage = Usage()
        for number, member in enumerate(self.members):
            if not isinstance(member.classifier, OverBackbones):
                others[number], took = metered(member.classifier, texts, runtime)
                usage += took
        with self.reader.metered(texts, runtime) as views:
            found = self.joined(self._answers(views, texts, others))
        self._told["predict"] = usage + self.reader.last_usage
        return found

    def _said(self) -> dict[str, Any]:
        """The members' views, so that backbones are placed before members are loaded."""
        return {"views": views_to_json(self.reader.views)}

    def predict_views(
        self, views: Mapping[str, np.ndarray], texts: Sequence[str]
    ) -> dict[str, Prediction]:
        """``views``: name -> (N, L, D)."""
        others = {
            number: member.classifier.predict(texts)
            for number, member in enumerate(self.members)
            if not isinstance(member.classifier, OverBackbones)
        }
        return self.joined(self._answers(views, texts, others))

    def features_of_views(
        self, views: Mapping[str, np.ndarray], texts: Sequence[str]
    ) -> np.ndarray:
        """What the members over backbones see, side by side, float32 (N, F)."""
        return np.concatenate(
            [
                member.classifier.features_of_views(self._own(views, number), texts)
                for number, member in enumerate(self.members)
                if isinstance(member.classifier, OverBackbones)
            ],
            axis=1,
        )

    def _answers(
        self,
        views: Mapping[str, np.ndarray],
        texts: Sequence[str],
        others: Mapping[int, dict[str, Prediction]],
    ) -> list[dict[str, Prediction]]:
        """Of all members in order; ``others``: by number, of those that read no view."""
        return [
            member.classifier.predict_views(self._own(views, number), texts)
            if isinstance(member.classifier, OverBackbones)
            else others[number]
            for number, member in enumerate(self.members)
        ]

    def _own(self, views: Mapping[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
        return {own: views[name] for own, name in self.names[number].items()}


def ensemble(
    *,
    tasks: tuple[Task, ...],
    members: tuple[Member, ...],
    weights: Mapping[str, Weights],
    fit_usage: Usage,
    chosen: Mapping[str, Any],
    notes: tuple[str, ...],
) -> EnsembleClassifier:
    """Over backbones, if a member is."""
    views: dict[str, View] = {}
    names: list[dict[str, str]] = []
    for member in members:
        own = member.classifier.backbones if isinstance(member.classifier, OverBackbones) else {}
        names.append({name: _name_of(view, views) for name, view in own.items()})
    told: dict[str, Any] = {
        "tasks": tasks,
        "members": members,
        "weights": weights,
        "fit_usage": fit_usage,
        "chosen": chosen,
        "notes": notes,
    }
    if not views:
        return EnsembleClassifier(**told)
    return EnsembleOverBackbones(**told, reader=ViewReader(views=views), names=tuple(names))


def _name_of(view: View, views: dict[str, View]) -> str:
    """The name of ``view`` among ``views``, to which it is added if it is new."""
    for name, known in views.items():
        if known == view:
            return name
    name = f"view-{len(views)}"
    views[name] = view
    return name


def metered(
    classifier: Classifier, texts: Sequence[str], runtime: Runtime | None
) -> tuple[dict[str, Prediction], Usage]:
    """What a member answers, and what that took, wherever it was done."""
    with Meter() as meter:
        answer = classifier.predict(texts, runtime)
    return answer, getattr(classifier, "predict_usage", None) or meter.usage


def scores_of(task: Task, answers: Sequence[Prediction]) -> np.ndarray:
    """Members' probabilities float32 (M, N, C); a member without scores is sure of its answer, one
    whose answer could not be read leaves it open."""
    found = []
    for answer in answers:
        count = len(answer.labels)
        if answer.scores is not None:
            scores = np.array(answer.scores, dtype=np.float32)
        elif task.kind == "multi":
            scores = np.asarray(answer.labels, dtype=np.float32)
        else:
            scores = np.zeros((count, len(task.classes)), dtype=np.float32)
            read = np.flatnonzero(answer.labels >= 0)
            scores[read, answer.labels[read]] = 1
        if task.kind != "tokens" and answer.invalid.any():
            scores[answer.invalid] = 0.5 if task.kind == "multi" else 1 / len(task.classes)
        found.append(scores)
    return np.stack(found)


def together(task: Task, answers: Sequence[Prediction], scores: np.ndarray) -> Prediction:
    """The answer of ``scores`` (N, C), invalid where no member's could be read."""
    invalid = np.logical_and.reduce([answer.invalid for answer in answers])
    decided = replace(decide(scores, task), invalid=invalid, offsets=answers[0].offsets)
    if task.kind == "tokens" or not invalid.any():
        return decided
    labels = decided.labels.copy()
    labels[invalid] = False if task.kind == "multi" else -1
    return replace(decided, labels=labels)
