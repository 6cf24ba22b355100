"""A classifier that works out its answers: clues, reasoning, label, in several rounds that vote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from llmembed.contract import Prediction, Runtime, Task, Usage
from llmembed.generation import Generator, Prompt, Sampling
from llmembed.generation.building import describe
from llmembed.methods import saved
from llmembed.methods.asked import Asks, InvalidAnswers, Planned, ask, unanswered
from llmembed.methods.asked_events import Events
from llmembed.methods.demonstrations import Demonstrations
from llmembed.methods.prompted.rationales import Rationales
from llmembed.methods.prompted.voting import Rounds, comparable, voted, weight_of
from llmembed.prompts.fitting import fit_prompts
from llmembed.prompts.question import Block, Question

TEMPLATES: tuple[Literal["carp_clues", "carp_reasoning", "carp_answer"], ...] = (
    "carp_clues",
    "carp_reasoning",
    "carp_answer",
)


def _prompt(question: Question, row: int, text: str, blocks: Sequence[Block]) -> Prompt:
    return question.prompt(text, blocks)


@dataclass(frozen=True, kw_only=True)
class Worked:
    """One task as CARP asks it: its rationales, and the question answered by working it out."""

    answer: Question
    rationales: Rationales

    @property
    def task(self) -> Task:
        return self.answer.tasks[0]


@dataclass(frozen=True, kw_only=True)
class CarpClassifier(Asks):
    """Answers ``tasks`` one after the other, each by its own prompts."""

    method: ClassVar[str] = "carp"
    parameters_trained: ClassVar[int] = 0
    tasks: tuple[Task, ...]
    generator: Generator
    worked: tuple[Worked, ...]
    demonstrations: Demonstrations
    extraction: Usage
    rounds: Rounds
    invalid: InvalidAnswers
    max_answer_tokens: int
    seed: int = 0
    _last: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def fit_usage(self) -> Usage:
        """Of embedding the training texts and of all rationales asked for so far: they belong to
        training texts and are made once, when a text to be answered first needs them."""
        return sum((each.rationales.usage for each in self.worked), start=self.extraction)

    def predict(
        self, texts: Sequence[str], runtime: Runtime | None = None
    ) -> dict[str, Prediction]:
        texts = list(texts)
        self._begin()
        events = Events(texts=len(texts))
        chosen, usage = self.demonstrations.choose(texts, runtime)
        self._took(usage)
        found: dict[str, Prediction] = {}
        for each in self.worked:
            prompts = self.prompts(each, texts, chosen, events, runtime)
            self.generator.used()  # the rationales' is told by themselves
            found[each.task.name], took = self._vote(each, texts, prompts, events, runtime)
            self._took(took + self.generator.used())
        self._tell(events)
        return found

    def prompts(
        self,
        each: Worked,
        texts: Sequence[str],
        chosen: Sequence[Sequence[int]],
        events: Events,
        runtime: Runtime | None,
    ) -> list[Prompt]:
        """What is asked of ``texts``, with the demonstrations at rows ``chosen`` of the pool; their
        rationales are made where there are none."""
        pool = self.demonstrations.pool
        rows = sorted({row for shown in chosen for row in shown})
        blocks: dict[int, Block] = {
            row: each.answer.block(pool, row, clues=why.clues, reasoning=why.reasoning)
            for row, why in each.rationales.of(pool, rows, runtime).items()
        }
        events.counts["without_rationale"] += len(rows) - len(blocks)
        events.reasons.update(each.rationales.missing)
        fitted = fit_prompts(
            self.generator,
            partial(_prompt, each.answer),
            texts,
            [[blocks[row] for row in shown if row in blocks] for shown in chosen],
            answer_tokens=self.max_answer_tokens,
        )
        events.counts.update(dropped=fitted.dropped, cut=fitted.cut)
        return fitted.prompts

    def plan(self, texts: Sequence[str], runtime: Runtime | None = None) -> list[Planned]:
        """What ``predict`` would ask, for an estimate: rationales that were not made yet, taken
        to be as long as they may be, and every round. Nothing is asked."""
        texts = list(texts)
        chosen, _ = self.demonstrations.choose(texts, runtime)
        pool = self.demonstrations.pool
        rows = sorted({row for shown in chosen for row in shown})
        planned: list[Planned] = []
        for each in self.worked:
            known = each.rationales.at_hand(pool, rows, runtime)
            missing = [row for row in rows if row not in known]
            planned += each.rationales.plan(pool, missing)
            longest = "word " * each.rationales.max_tokens
            told = {row: (known[row].clues, known[row].reasoning) for row in known}
            told.update(dict.fromkeys(missing, (longest, longest)))
            blocks = {
                row: each.answer.block(pool, row, clues=clues, reasoning=reasoning)
                for row, (clues, reasoning) in told.items()
            }
            fitted = fit_prompts(
                self.generator,
                partial(_prompt, each.answer),
                texts,
                [[blocks[row] for row in shown] for shown in chosen],
                answer_tokens=self.max_answer_tokens,
            )
            planned += [
                Planned(what="answers", prompts=fitted.prompts, sampling=self._sampling(each, n))
                for n in range(self.rounds.number)
            ]
        return planned

    def _sampling(self, each: Worked, number: int) -> Sampling:
        return self.rounds.sampling(
            number,
            seed=self.seed,
            max_tokens=self.max_answer_tokens,
            stop=each.answer.template.stop,
        )

    def _vote(
        self,
        each: Worked,
        texts: Sequence[str],
        prompts: Sequence[Prompt],
        events: Events,
        runtime: Runtime | None,
    ) -> tuple[Prediction, Usage]:
        names = [*each.answer.names[each.task.name], *each.task.classes]
        labels = np.full((self.rounds.number, len(texts)), -1, dtype=np.int64)
        weights = np.ones((self.rounds.number, len(texts)))
        missing = np.zeros(len(texts), dtype=bool)
        usage = Usage()
        for number in range(self.rounds.number):
            answers, readings, took = ask(
                self.generator,
                each.answer,
                prompts,
                [text.split() for text in texts],
                self._sampling(each, number),
                self.invalid,
                events,
                runtime,
                seed=0 if self.rounds.temperature > 0 else self.seed,
            )
            usage += took
            # A vote that lacks a round is not this classifier's vote.
            missing |= unanswered(answers)
            for row, reading in enumerate(readings):
                labels[number, row] = reading[each.task.name].label  # type: ignore[union-attr]
            if self.rounds.vote == "weighted":
                weights[number] = [weight_of(answer, names) for answer in answers]
        weights, counted = comparable(labels, weights)
        events.counts["counted"] += counted
        found = voted(labels, weights, len(each.task.classes))
        return replace(found, unanswered=missing), usage

    def save(self, folder: Path) -> None:
        described = describe(self.generator)
        self.demonstrations.save(folder)
        for each in self.worked:
            each.rationales.save(folder / f"rationales-{each.task.name}.json")
        saved.write(
            folder,
            method=self.method,
            tasks=self.tasks,
            fit_usage=self.fit_usage,
            settings={
                "generator": described,
                "questions": [
                    {
                        "carp_clues": each.rationales.clues.to_json(),
                        "carp_reasoning": each.rationales.reasoning.to_json(),
                        "carp_answer": each.answer.to_json(),
                    }
                    for each in self.worked
                ],
                "rationale_tokens": self.worked[0].rationales.max_tokens,
                "extraction": self.extraction.to_json(),
                "rounds": {
                    "number": self.rounds.number,
                    "temperature": self.rounds.temperature,
                    "vote": self.rounds.vote,
                },
                "invalid": self.invalid.to_json(),
                "max_answer_tokens": self.max_answer_tokens,
                "seed": self.seed,
            },
            arrays=self.demonstrations.arrays(),
        )

    @classmethod
    def load(cls, folder: Path, generator: Generator | None = None) -> CarpClassifier:
        """``generator``: instead of the one described in ``folder``, for instance with a cache and
        a budget."""
        tasks, _, settings, arrays = saved.read(folder)
        generator = generator or saved.generator(settings["generator"])
        worked = []
        for task, told in zip(tasks, settings["questions"], strict=True):
            clues, reasoning, answer = (Question.from_json([task], told[n]) for n in TEMPLATES)
            rationales = Rationales(
                generator=generator,
                clues=clues,
                reasoning=reasoning,
                max_tokens=settings["rationale_tokens"],
            )
            rationales.load(saved.inside(folder, f"rationales-{task.name}.json"))
            worked.append(Worked(answer=answer, rationales=rationales))
        return cls(
            tasks=tasks,
            generator=generator,
            worked=tuple(worked),
            demonstrations=Demonstrations.load(folder, arrays),
            extraction=Usage.from_json(settings["extraction"]),
            rounds=Rounds(**settings["rounds"]),
            invalid=InvalidAnswers.from_json(settings["invalid"]),
            max_answer_tokens=settings["max_answer_tokens"],
            seed=settings["seed"],
        )
