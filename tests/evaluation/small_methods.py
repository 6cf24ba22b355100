"""Two small real methods: the floor every leaderboard needs, and one that learns."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from llmembed.contract import Prediction, Task, Usage
from llmembed.errors import UnsupportedError
from llmembed.metering import Meter


@dataclass(frozen=True, kw_only=True)
class WordVotes:
    """Scores by smoothed counts of a text's words in each class (naive Bayes)."""

    tasks: tuple[Task, ...]
    logs: dict[str, dict[str, np.ndarray]]
    priors: dict[str, np.ndarray]
    fit_usage: Usage
    method: str = "word-votes"
    chosen: dict[str, float] = field(default_factory=lambda: {"smoothing": 1.0})

    @property
    def parameters_trained(self) -> int:
        return sum(len(words) * len(self.priors[task]) for task, words in self.logs.items())

    def predict(self, texts, runtime=None):
        found = {}
        for task in self.tasks:
            logits = np.array(
                [
                    self.priors[task.name]
                    + sum(self.logs[task.name].get(word, 0.0) for word in text.split())
                    for text in texts
                ]
            ).reshape(len(texts), -1)
            scores = np.exp(logits - logits.max(axis=1, keepdims=True))
            scores = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
            found[task.name] = Prediction(
                labels=scores.argmax(axis=1),
                scores=scores,
                invalid=np.zeros(len(texts), dtype=bool),
            )
        return found

    def save(self, folder: Path) -> None:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class FitWordVotes:
    """Fits on a seeded draw of ``share`` of the training texts."""

    share: float = 0.6
    seed: int = 0
    name: str = "word-votes"
    machinery_only: bool = False

    @property
    def label(self) -> str:
        return f"word-votes {self.share:g}"

    def fit(self, tasks, train, valid, runtime, reporter):
        if any(task.kind != "single" for task in tasks):
            raise UnsupportedError("word-votes answers one label a text")
        with Meter(tokens=sum(len(text.split()) for text in train.texts)) as meter:
            generator = np.random.default_rng(self.seed)
            drawn = train.select(np.flatnonzero(generator.random(len(train)) < self.share))
            logs, priors = {}, {}
            for task in tasks:
                n = len(task.classes)
                counts: dict[str, np.ndarray] = {}
                for text, label in zip(drawn.texts, drawn.labels[task.name], strict=True):
                    for word in text.split():
                        counts.setdefault(word, np.ones(n))[label] += 1
                logs[task.name] = {word: np.log(row / row.sum()) for word, row in counts.items()}
                priors[task.name] = np.log(1 + np.bincount(drawn.labels[task.name], minlength=n))
            reporter.report({"texts": float(len(drawn))}, step=1)
        return WordVotes(tasks=tuple(tasks), logs=logs, priors=priors, fit_usage=meter.usage)


@dataclass(frozen=True, kw_only=True)
class Majority:
    """The floor: the commonest class, whatever the text; its scores are the classes' shares."""

    name: str = "majority"
    deterministic: bool = True

    def fit(self, tasks, train, valid, runtime, reporter):
        with Meter() as meter:
            priors = {
                task.name: np.log(
                    [
                        Counter(train.labels[task.name].tolist())[c]
                        for c, _ in enumerate(task.classes)
                    ]
                )
                for task in tasks
            }
        logs: dict[str, dict[str, np.ndarray]] = {task.name: {} for task in tasks}
        votes = WordVotes(tasks=tuple(tasks), logs=logs, priors=priors, fit_usage=meter.usage)
        return replace(votes, method="majority")
