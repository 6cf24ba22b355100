"""A classifier that asks a language model for every text's labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from llmembed.contract import Prediction, Runtime, Task, Usage
from llmembed.generation import Generator, Prompt, Sampling
from llmembed.generation.building import describe
from llmembed.metering import Meter
from llmembed.methods import saved
from llmembed.methods.asked import Asks, InvalidAnswers, Planned, ask, predictions
from llmembed.methods.asked_events import Events
from llmembed.methods.demonstrations import Demonstrations
from llmembed.metrics.deciding import decided
from llmembed.prompts.fitting import Fitted, fit_prompts
from llmembed.prompts.question import Question

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Texts that say nothing: what a model answers to them is its bias (Zhao et al. 2021)."""


@dataclass(frozen=True, kw_only=True)
class PromptClassifier(Asks):
    """Asks ``generator`` for every text. ``decision``: the answer is written freely and read, or
    each label is scored as the whole answer; ``calibrate`` divides the latter scores by those of
    texts without content."""

    method: ClassVar[str] = "prompt"
    parameters_trained: ClassVar[int] = 0
    tasks: tuple[Task, ...]
    generator: Generator
    question: Question
    demonstrations: Demonstrations
    fit_usage: Usage
    decision: Literal["generate", "score"] = "generate"
    calibrate: bool = False
    invalid: InvalidAnswers = field(default_factory=InvalidAnswers)
    max_answer_tokens: int = 32
    seed: int = 0
    _last: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def predict(
        self, texts: Sequence[str], runtime: Runtime | None = None
    ) -> dict[str, Prediction]:
        texts = list(texts)
        self._begin()
        events = Events(texts=len(texts))
        chosen, usage = self.demonstrations.choose(texts, runtime)
        with Meter() as meter:
            fitted = self.fitted(texts, chosen)
        self._took(usage + meter.usage)
        events.counts.update(dropped=fitted.dropped, cut=fitted.cut)
        words = [text.split() for text in texts]
        if self.decision == "score":
            found = self._scored(chosen, fitted, events, runtime)
        else:
            answers, readings, took = ask(
                self.generator,
                self.question,
                fitted.prompts,
                words,
                self._sampling(),
                self.invalid,
                events,
                runtime,
                seed=self.seed,
            )
            self._took(took)
            found = predictions(self.tasks, answers, readings, words)
        self._took(self.generator.used())
        self._tell(events)
        return found

    def plan(self, texts: Sequence[str], runtime: Runtime | None = None) -> list[Planned]:
        """What ``predict`` would ask, for an estimate; nothing is asked."""
        chosen, _ = self.demonstrations.choose(list(texts), runtime)
        fitted = self.fitted(list(texts), chosen)
        if self.decision == "generate":
            return [Planned(what="answers", prompts=fitted.prompts, sampling=self._sampling())]
        (task,) = self.tasks
        shown = dict.fromkeys(self._shown(chosen, fitted)) if self.calibrate else ()
        return [
            Planned(
                what="scores",
                prompts=[*fitted.prompts, *self._content_free([*shown])],
                sampling=self._sampling(),
                candidates=tuple(self.question.names[task.name]),
            )
        ]

    def _sampling(self) -> Sampling:
        return Sampling(max_tokens=self.max_answer_tokens, stop=self.question.template.stop)

    def fitted(self, texts: Sequence[str], chosen: Sequence[Sequence[int]]) -> Fitted:
        """The prompts of ``texts``, with the demonstrations at rows ``chosen``, as they fit."""
        rows = {row for each in chosen for row in each}
        blocks = {row: self.question.block(self.demonstrations.pool, row) for row in rows}
        return fit_prompts(
            self.generator,
            lambda _, text, shown: self.question.prompt(text, shown),
            texts,
            [[blocks[row] for row in each] for each in chosen],
            answer_tokens=self.max_answer_tokens,
        )

    def _scored(
        self,
        chosen: Sequence[Sequence[int]],
        fitted: Fitted,
        events: Events,
        runtime: Runtime | None,
    ) -> dict[str, Prediction]:
        (task,) = self.tasks
        scores, refused = self._probabilities(fitted.prompts, runtime)
        if self.calibrate and chosen:
            shown = self._shown(chosen, fitted)
            distinct = list(dict.fromkeys(shown))
            bias = self._bias(distinct, runtime)
            place = {rows: number for number, rows in enumerate(distinct)}
            scores = scores / np.maximum(bias[[place[rows] for rows in shown]], 1e-12)
            scores = scores / scores.sum(axis=1, keepdims=True)
        invalid = ~np.isfinite(scores).all(axis=1)
        missing = invalid & ~refused
        events.counts.update(failed=int(missing.sum()), refused=int(refused.sum()))
        events.refused.update(dict.fromkeys(np.flatnonzero(refused).tolist(), "not scored"))
        scores = np.where(invalid[:, None], 0.0, scores).astype(np.float32)
        labels = np.where(invalid, -1, decided(task, scores)).astype(np.int64)
        return {
            task.name: Prediction(labels=labels, scores=scores, invalid=invalid, unanswered=missing)
        }

    def _shown(self, chosen: Sequence[Sequence[int]], fitted: Fitted) -> list[tuple[int, ...]]:
        """The demonstrations that each prompt shows after fitting: the farthest were dropped."""
        return [
            tuple(rows[len(rows) - number :])
            for rows, number in zip(chosen, fitted.shown, strict=True)
        ]

    def _content_free(self, shown: Sequence[Sequence[int]]) -> list[Prompt]:
        prompts: list[Prompt] = []
        for rows in shown:
            blocks = [self.question.block(self.demonstrations.pool, row) for row in rows]
            prompts += [self.question.prompt(text, blocks) for text in CONTENT_FREE]
        return prompts

    def _bias(self, shown: Sequence[Sequence[int]], runtime: Runtime | None) -> np.ndarray:
        """Mean probabilities (D, C) of texts without content under each of D sets of
        demonstrations."""
        found, _ = self._probabilities(self._content_free(shown), runtime)
        mean: np.ndarray = found.reshape(len(shown), len(CONTENT_FREE), -1).mean(axis=1)
        return mean

    def _probabilities(
        self, prompts: Sequence[Prompt], runtime: Runtime | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Each label's share (N, C) of the probability that all labels have together, NaN for a
        prompt that got no answer; and which prompts (N,) were refused."""
        (task,) = self.tasks
        names = self.question.names[task.name]
        if not prompts:
            return np.zeros((0, len(names))), np.zeros(0, dtype=bool)
        logs = self.generator.score(prompts, names, runtime).astype(np.float64)
        refused = np.asarray(np.isneginf(logs).all(axis=1))
        logs[refused] = np.nan
        odds = np.exp(logs - logs.max(axis=1, keepdims=True))
        return odds / odds.sum(axis=1, keepdims=True), refused

    def save(self, folder: Path) -> None:
        described = describe(self.generator)
        self.demonstrations.save(folder)
        saved.write(
            folder,
            method=self.method,
            tasks=self.tasks,
            fit_usage=self.fit_usage,
            settings={
                "generator": described,
                "question": self.question.to_json(),
                "decision": self.decision,
                "calibrate": self.calibrate,
                "invalid": self.invalid.to_json(),
                "max_answer_tokens": self.max_answer_tokens,
                "seed": self.seed,
            },
            arrays=self.demonstrations.arrays(),
        )

    @classmethod
    def load(cls, folder: Path, generator: Generator | None = None) -> PromptClassifier:
        """``generator``: instead of the one described in ``folder``, for instance with a cache and
        a budget."""
        tasks, usage, settings, arrays = saved.read(folder)
        return cls(
            tasks=tasks,
            generator=generator or saved.generator(settings["generator"]),
            question=Question.from_json(tasks, settings["question"]),
            demonstrations=Demonstrations.load(folder, arrays),
            fit_usage=usage,
            decision=settings["decision"],
            calibrate=settings["calibrate"],
            invalid=InvalidAnswers.from_json(settings["invalid"]),
            max_answer_tokens=settings["max_answer_tokens"],
            seed=settings["seed"],
        )
