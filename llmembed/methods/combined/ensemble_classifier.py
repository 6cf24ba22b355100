"""What an ensemble answers: its members' probabilities, weighted.

Members over frozen backbones share them: one pass over a text, however many members read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from llmembed.backbones import View
from llmembed.contract import Classifier, OverBackbones, Prediction, Runtime, Task, Usage
from llmembed.errors import ModelError
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
        from llmembed.metering import Meter

        with Meter() as meter:
            answers = [member.classifier.predict(texts, runtime) for member in self.members]
            found = self.joined(answers)
        elsewhere = [getattr(m.classifier, "predict_usage", None) for m in self.members]
        told = [usage for usage in elsewhere if usage is not None]
        self._told["predict"] = sum(told, Usage()) if len(told) == len(elsewhere) else meter.usage
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
        from llmembed.methods import load

        tasks, usage, settings, _ = saved.read(folder)
        names = settings["members"]
        if len(names) > MOST:
            raise ModelError(f"{folder}: an ensemble of {len(names)} members; {MOST} are the most")
        members = []
        for number, name in enumerate(names):
            classifier = load(folder / FOLDERS.format(number))
            if isinstance(classifier, EnsembleClassifier):
                raise ModelError(f"{folder}: a member is an ensemble itself")
            if getattr(classifier, "generator", None) is not None:
                # Budgets and limits of whoever loads would not reach it there.
                raise ModelError(f"{folder}: a member asks a language model, which stands alone")
            if [task.name for task in classifier.tasks] != [task.name for task in tasks]:
                raise ModelError(f"{folder}: member {number} answers other tasks")
            members.append(Member(name=str(name), classifier=classifier))
        weights = {name: Weights.from_json(each) for name, each in settings["weights"].items()}
        for task in tasks:
            own = weights.get(task.name)
            if own is None or len(own.of_members) != len(members):
                raise ModelError(f"{folder}: weights and members of {task.name!r} do not fit")
            if len(own.bias) != len(task.classes):
                raise ModelError(f"{folder}: weights and classes of {task.name!r} do not fit")
        return ensemble(
            tasks=tasks,
            members=tuple(members),
            weights=weights,
            fit_usage=usage,
            chosen=settings["chosen"],
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
        with self.reader.metered(texts, runtime) as views:
            answers = self._answers(views, texts, runtime)
            found = self.joined(answers)
        # Members with workers of their own tell what these took; the rest was metered here.
        others = [
            getattr(member.classifier, "predict_usage", Usage())
            for member in self.members
            if not isinstance(member.classifier, OverBackbones)
        ]
        self._told["predict"] = sum(others, self.reader.last_usage)
        return found

    def _said(self) -> dict[str, Any]:
        """The members' views, so that backbones are placed before members are loaded."""
        return {"views": views_to_json(self.reader.views)}

    def predict_views(
        self, views: Mapping[str, np.ndarray], texts: Sequence[str]
    ) -> dict[str, Prediction]:
        """``views``: name -> (N, L, D)."""
        return self.joined(self._answers(views, texts, None))

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
        self, views: Mapping[str, np.ndarray], texts: Sequence[str], runtime: Runtime | None
    ) -> list[dict[str, Prediction]]:
        return [
            member.classifier.predict_views(self._own(views, number), texts)
            if isinstance(member.classifier, OverBackbones)
            else member.classifier.predict(texts, runtime)
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
    from dataclasses import replace

    invalid = np.logical_and.reduce([answer.invalid for answer in answers])
    decided = replace(decide(scores, task), invalid=invalid, offsets=answers[0].offsets)
    if task.kind == "tokens" or not invalid.any():
        return decided
    labels = decided.labels.copy()
    labels[invalid] = False if task.kind == "multi" else -1
    return replace(decided, labels=labels)
