"""``prompt``: a language model is asked for the label, with or without demonstrations; nothing is
trained (PAPERS: MT's prompts without fine-tuning, CARP's IO baseline)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from llmembed.backbones import View
from llmembed.contract import Examples, Prediction, Reporter, Runtime, Task, Usage
from llmembed.errors import ConfigError, UnsupportedError
from llmembed.generation import Generator, Prompt, Sampling
from llmembed.generation.building import build_generator, describe
from llmembed.generation.fitting import Fitted, fit_prompts
from llmembed.generation.question import Question, variant_of
from llmembed.generation.templates import Variant
from llmembed.metering import Meter
from llmembed.methods import saved
from llmembed.methods.asking import (
    Events,
    InvalidAnswers,
    ask,
    generator_settings,
    make_question,
    predictions,
)
from llmembed.methods.demonstrations import Demonstrations, Kind, gather

Style = Literal["io", "zero_shot", "k_shot"]
SHOWN: dict[Style, int] = {"io": 16, "zero_shot": 0, "k_shot": 5}
"""Style -> how many demonstrations it shows unless told otherwise."""

CONTENT_FREE = ("N/A", "[MASK]", "")
"""Texts that say nothing: what a model answers to them is its bias (Zhao et al. 2021)."""


@dataclass(frozen=True, kw_only=True)
class PromptClassifier:
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

    @property
    def predict_usage(self) -> Usage:
        """What the last ``predict`` took: the model's work or an endpoint's tokens, answers read
        from the cache included, and the embeddings that found the demonstrations."""
        return self._last.get("usage", Usage())  # type: ignore[no-any-return]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was dropped, cut, unreadable or guessed in the last ``predict``."""
        return self._last.get("notes", ())  # type: ignore[no-any-return]

    def predict(
        self, texts: Sequence[str], runtime: Runtime | None = None
    ) -> dict[str, Prediction]:
        texts = list(texts)
        self.generator.used()  # what others asked of it is not this predict's
        events = Events(texts=len(texts))
        chosen, usage = self.demonstrations.choose(texts, runtime)
        with Meter() as meter:
            fitted = self.fitted(texts, chosen)
        usage += meter.usage
        events.counts.update(dropped=fitted.dropped, cut=fitted.cut)
        words = [len(text.split()) for text in texts]
        if self.decision == "score":
            found = self._scored(chosen, fitted, events, runtime)
        else:
            sampling = Sampling(max_tokens=self.max_answer_tokens, stop=self.question.template.stop)
            _, readings, took = ask(
                self.generator,
                self.question,
                fitted.prompts,
                words,
                sampling,
                self.invalid,
                events,
                runtime,
                seed=self.seed,
            )
            usage += took
            found = predictions(self.tasks, readings, words)
        self._last["usage"] = usage + self.generator.used()
        self._last["notes"] = events.notes()
        return found

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
        scores = self._probabilities(fitted.prompts, runtime)
        if self.calibrate and chosen:
            shown = [
                tuple(rows[len(rows) - number :])
                for rows, number in zip(chosen, fitted.shown, strict=True)
            ]
            distinct = list(dict.fromkeys(shown))
            bias = self._bias(distinct, runtime)
            place = {rows: number for number, rows in enumerate(distinct)}
            scores = scores / np.maximum(bias[[place[rows] for rows in shown]], 1e-12)
            scores = scores / scores.sum(axis=1, keepdims=True)
        failed = ~np.isfinite(scores).all(axis=1)
        events.counts["failed"] += int(failed.sum())
        events.counts["invalid"] += int(failed.sum())
        scores = np.where(failed[:, None], 0.0, scores).astype(np.float32)
        labels = np.where(failed, -1, scores.argmax(axis=1)).astype(np.int64)
        return {task.name: Prediction(labels=labels, scores=scores, invalid=failed)}

    def _bias(self, shown: Sequence[Sequence[int]], runtime: Runtime | None) -> np.ndarray:
        """Mean probabilities (D, C) of texts without content under each of D sets of
        demonstrations."""
        prompts: list[Prompt] = []
        for rows in shown:
            blocks = [self.question.block(self.demonstrations.pool, row) for row in rows]
            prompts += [self.question.prompt(text, blocks) for text in CONTENT_FREE]
        found = self._probabilities(prompts, runtime)
        mean: np.ndarray = found.reshape(len(shown), len(CONTENT_FREE), -1).mean(axis=1)
        return mean

    def _probabilities(self, prompts: Sequence[Prompt], runtime: Runtime | None) -> np.ndarray:
        """Each label's share (N, C) of the probability that all labels have together, NaN for a
        prompt that got no answer."""
        (task,) = self.tasks
        names = self.question.names[task.name]
        if not prompts:
            return np.zeros((0, len(names)))
        logs = self.generator.score(prompts, names, runtime).astype(np.float64)
        odds = np.exp(logs - logs.max(axis=1, keepdims=True))
        shares: np.ndarray = odds / odds.sum(axis=1, keepdims=True)
        return shares

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
            generator=generator or build_generator(settings["generator"]),
            question=Question.from_json(tasks, settings["question"]),
            demonstrations=Demonstrations.load(folder, arrays),
            fit_usage=usage,
            decision=settings["decision"],
            calibrate=settings["calibrate"],
            invalid=InvalidAnswers.from_json(settings["invalid"]),
            max_answer_tokens=settings["max_answer_tokens"],
            seed=settings["seed"],
        )


@dataclass(frozen=True, kw_only=True)
class Prompting:
    """Makes ``PromptClassifier``; nothing is trained and nothing asked of the model.

    ``style``: ``zero_shot``; ``k_shot``, instructions and ``k`` (5) demonstrations; ``io``, hardly
    any instruction and ``k`` (16) demonstrations. ``demonstrations``: ``random`` (balanced over
    classes, drawn by the seed) or ``nearest`` (in ``view``), the default where there is a view.
    ``benchmark`` names the data set whose readable label names and sort of text are used;
    ``verbaliser`` (task -> label -> name) and ``text_kind`` go before it. ``template``: a file of
    one's own. ``max_answer_tokens``: 32 for one label, 512 where words are tagged, else 32 a task.
    """

    classifier: ClassVar[type[PromptClassifier]] = PromptClassifier
    generator: Generator
    style: Style = "k_shot"
    k: int | None = None
    demonstrations: Kind | None = None
    view: View | None = None
    decision: Literal["generate", "score"] = "generate"
    calibrate: bool = False
    invalid: InvalidAnswers = field(default_factory=InvalidAnswers)
    benchmark: str | None = None
    verbaliser: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    text_kind: str | None = None
    template: str | Path | None = None
    max_answer_tokens: int | None = None
    seed: int = 0
    name: str = "prompt"

    def __post_init__(self) -> None:
        if self.style not in SHOWN:
            raise ConfigError(f"unknown style {self.style!r}; known are {', '.join(SHOWN)}")
        if self.decision not in ("generate", "score"):
            raise ConfigError(f"unknown decision {self.decision!r}; known are generate, score")
        if self.style == "zero_shot" and (self.k or self.demonstrations not in (None, "none")):
            raise ConfigError("style zero_shot shows no demonstrations; ask for k_shot")
        if self.calibrate and self.decision != "score":
            raise ConfigError("calibrate needs decision: score, since written answers have none")

    @property
    def shown(self) -> tuple[Kind, int]:
        """How demonstrations are chosen, and how many."""
        k = SHOWN[self.style] if self.k is None else self.k
        kind = self.demonstrations or ("random" if self.view is None else "nearest")
        return ("none", 0) if k == 0 or kind == "none" else (kind, k)

    @property
    def machinery_only(self) -> bool:
        return self.generator.machinery_only is not None

    @property
    def deterministic(self) -> bool:
        """Whether another seed changes nothing."""
        return self.shown[0] != "random" and self.invalid.policy != "retry"

    @property
    def settings(self) -> dict[str, Any]:
        """What the leaderboard shows of the method."""
        kind, k = self.shown
        return {
            "generator": generator_settings(self.generator),
            "style": self.style,
            "demonstrations": kind,
            "k": k,
            "view": self.view,
            "decision": self.decision,
            "calibrate": self.calibrate,
            "invalid": self.invalid.to_json(),
            "benchmark": self.benchmark,
            "verbaliser": self.verbaliser,
            "text_kind": self.text_kind,
            "template": None if self.template is None else str(self.template),
            "max_answer_tokens": self.max_answer_tokens,
        }

    def seeded(self, seed: int) -> Prompting:
        return replace(self, seed=seed)

    def fit(
        self,
        tasks: Sequence[Task],
        train: Examples,
        valid: Examples,
        runtime: Runtime,
        reporter: Reporter,
    ) -> PromptClassifier:
        variant: Variant = variant_of(tasks)
        if self.decision == "score":
            if variant != "label":
                raise UnsupportedError(
                    f"labels are scored for one task of one label, not for "
                    f"{', '.join(task.name for task in tasks)}; set decision: generate"
                )
            if not self.generator.gives_scores:
                raise UnsupportedError(
                    f"{self.generator.name} tells no log-probabilities of given answers, so labels "
                    "can't be scored; set decision: generate"
                )
        variant = "io" if variant == "label" and self.style == "io" else variant
        question = make_question(
            tasks,
            variant,
            template=self.template,
            benchmark=self.benchmark,
            verbaliser=self.verbaliser,
            text_kind=self.text_kind,
        )
        kind, k = self.shown
        demonstrations, usage = gather(
            kind, k, tasks, train, view=self.view, seed=self.seed, runtime=runtime
        )
        longest = 512 if any(task.kind == "tokens" for task in tasks) else 32 * len(tasks)
        return PromptClassifier(
            tasks=tuple(tasks),
            generator=self.generator,
            question=question,
            demonstrations=demonstrations,
            fit_usage=usage,
            decision=self.decision,
            calibrate=self.calibrate,
            invalid=self.invalid,
            max_answer_tokens=self.max_answer_tokens or longest,
            seed=self.seed,
        )
