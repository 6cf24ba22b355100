"""What the prompting methods share: asking a generator, reading its answers, and what is done with
answers that can't be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from llmembed.backbones import View
from llmembed.contract import Prediction, Runtime, Task, Usage
from llmembed.errors import ConfigError
from llmembed.generation import Answer, Generator, Prompt, Sampling
from llmembed.generation.building import describe
from llmembed.methods.asked_events import Events
from llmembed.methods.demonstrations import unit_vectors, view_reader
from llmembed.prompts.parsing import Reading
from llmembed.prompts.question import Question
from llmembed.prompts.slot_parsing import SlotReading

Policy = Literal["wrong", "retry", "nearest"]
POLICIES: tuple[Policy, ...] = ("wrong", "retry", "nearest")
RETRY_SEEDS = 1_000_003
"""How far the seeds of repeated questions lie from the first one's."""

Readings = dict[str, Reading | SlotReading]


@dataclass(frozen=True, kw_only=True)
class Planned:
    """Questions that a ``predict`` would ask: answered as ``sampling`` says, or, where there are
    ``candidates``, each of these scored as the answer."""

    what: str
    prompts: list[Prompt]
    sampling: Sampling
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InvalidAnswers:
    """What becomes of an answer that can't be read; one that never came is not of these. ``wrong``:
    it counts as wrong. ``retry``: the question is asked up to ``retries`` times again at
    ``temperature``. ``nearest``: the label whose name lies nearest to the answer in ``view`` is
    taken, and the row says so."""

    policy: Policy = "wrong"
    retries: int = 2
    temperature: float = 0.7
    view: View | None = None

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ConfigError(
                f"unknown policy for invalid answers {self.policy!r}; known are "
                f"{', '.join(POLICIES)}"
            )
        if self.retries > 100:
            raise ConfigError(f"retries is {self.retries}: expected at most 100")
        if self.policy == "retry" and (self.retries < 1 or self.temperature <= 0):
            raise ConfigError("to ask again needs at least one retry and a temperature above 0")
        if self.policy == "nearest" and self.view is None:
            raise ConfigError(
                "the policy `nearest` for invalid answers needs a view, whose vectors say which "
                "label is near"
            )

    def to_json(self) -> dict[str, Any]:
        if self.policy == "wrong":
            return {"policy": "wrong"}
        if self.policy == "retry":
            told = {"retries": self.retries, "temperature": self.temperature}
            return {"policy": "retry", **told}
        assert self.view is not None
        return {"policy": "nearest", "view": self.view.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> InvalidAnswers:
        view = data.get("view")
        return cls(**{**data, "view": None if view is None else View.from_json(view)})


class Asks:
    """Base of the classifiers that ask a generator. ``_last``: what the last ``predict`` left, and
    what all of them took together."""

    generator: Generator
    _last: dict[str, Any]

    fit_reads_validation: ClassVar[bool] = False
    """Nothing is asked of validation texts before they are answered: what that takes comes on top
    of ``fit_usage``."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was dropped, cut, unreadable or guessed in the last ``predict``."""
        return self._last.get("notes", ())  # type: ignore[no-any-return]

    @property
    def complaints(self) -> tuple[str, ...]:
        """Why there were no answers in the last ``predict``, in the endpoint's own words."""
        return self._last.get("complaints", ())  # type: ignore[no-any-return]

    @property
    def refused(self) -> Mapping[int, str]:
        """Row -> why it was refused, in the last ``predict``."""
        return self._last.get("refused", {})  # type: ignore[no-any-return]

    @property
    def predict_usage(self) -> Usage:
        """What the last ``predict`` took: the model's work or an endpoint's tokens, answers read
        from the cache included, and the embeddings that found the demonstrations. CARP's
        rationales are in ``fit_usage``."""
        return self._last.get("usage", Usage())  # type: ignore[no-any-return]

    @property
    def answers_are_cached(self) -> bool:
        """Whether asking the same again costs nothing and takes no time worth measuring."""
        return getattr(self.generator, "cache", None) is not None

    def until_failed(self) -> Usage:
        """What every ``predict`` took so far, up to where the last one failed. Asked once."""
        before: Usage = self._last.get("before", Usage())
        return before + self.predict_usage + self.generator.used()

    def _begin(self) -> None:
        """A new ``predict``: what others asked of the generator is not of it."""
        self.generator.used()
        self._last["before"] = self._last.get("before", Usage()) + self.predict_usage
        self._last["usage"] = Usage()

    def _tell(self, events: Events) -> None:
        """What happened in this ``predict``."""
        self._last["notes"] = events.notes()
        self._last["complaints"] = events.complaints()
        self._last["refused"] = dict(events.refused)

    def _took(self, usage: Usage) -> None:
        self._last["usage"] = self.predict_usage + usage


def ask(
    generator: Generator,
    question: Question,
    prompts: Sequence[Prompt],
    words: Sequence[Sequence[str]],
    sampling: Sampling,
    invalid: InvalidAnswers,
    events: Events,
    runtime: Runtime | None,
    *,
    seed: int = 0,
) -> tuple[list[Answer], list[Readings], Usage]:
    """Answers to ``prompts`` and what they say, after ``invalid`` did its work; and what embedding
    answers took. ``words``: of each text; ``seed``: of questions asked again. What the
    generator took is told by itself."""
    if not prompts:
        return [], [], Usage()
    answers = generator.generate(prompts, sampling, runtime)
    readings = [question.read(a.text, each) for a, each in zip(answers, words, strict=True)]
    if invalid.policy == "retry":
        for attempt in range(1, invalid.retries + 1):
            rows = [
                row
                for row, (answer, reading) in enumerate(zip(answers, readings, strict=True))
                if answer.finish != "failed" and _unread(reading)
            ]
            if not rows:
                break
            again = replace(
                sampling,
                temperature=max(sampling.temperature, invalid.temperature),
                seed=sampling.seed + seed + RETRY_SEEDS * attempt,
            )
            events.counts["asked_again"] += len(rows)
            new = generator.generate([prompts[row] for row in rows], again, runtime)
            for row, answer in zip(rows, new, strict=True):
                reading = question.read(answer.text, words[row])
                if answer.finish == "failed" or not _unread(reading):
                    answers[row], readings[row] = answer, reading
    for row, (answer, reading) in enumerate(zip(answers, readings, strict=True)):
        events.saw(row, answer)
        came = answer.finish not in ("failed", "refused")
        events.counts["invalid"] += came and bool(_unread(reading))
        for part in reading.values():
            if isinstance(part, SlotReading):
                events.counts.update(padded=part.added, cut_off=part.cut_off, unknown=part.unknown)
    usage = Usage()
    if invalid.policy == "nearest":
        usage = _nearest(question, answers, readings, invalid, events, runtime)
    return answers, readings, usage


def _unread(readings: Readings) -> list[str]:
    """The tasks to which there is no readable answer."""
    return [name for name, reading in readings.items() if reading.why is not None]


def _nearest(
    question: Question,
    answers: Sequence[Answer],
    readings: Sequence[Readings],
    invalid: InvalidAnswers,
    events: Events,
    runtime: Runtime | None,
) -> Usage:
    """Give unreadable answers the label whose name is nearest; empty answers stay invalid."""
    assert invalid.view is not None
    reader, usage = view_reader(invalid.view), Usage()
    for task in question.tasks:
        if task.kind != "single":
            continue
        said = {
            row: question.said(answers[row].text, task).strip()
            for row, reading in enumerate(readings)
            if reading[task.name].why is not None
        }
        said = {row: text for row, text in said.items() if text}
        if not said:
            continue
        names, took = unit_vectors(reader, question.names[task.name], runtime)
        vectors, also_took = unit_vectors(reader, list(said.values()), runtime)
        usage += took + also_took
        for row, label in zip(said, (vectors @ names.T).argmax(axis=1), strict=True):
            readings[row][task.name] = Reading(label=int(label))
            events.counts["nearest"] += 1
    return usage


def unanswered(answers: Sequence[Answer]) -> np.ndarray:
    """Which of ``answers`` never came, bool (N,)."""
    return np.array([answer.finish == "failed" for answer in answers], dtype=bool)


def predictions(
    tasks: Sequence[Task],
    answers: Sequence[Answer],
    readings: Sequence[Readings],
    words: Sequence[Sequence[str]],
) -> dict[str, Prediction]:
    """One prediction per task."""
    missing = unanswered(answers)
    found: dict[str, Prediction] = {}
    for task in tasks:
        parts = [reading[task.name] for reading in readings]
        invalid = np.array([part.why is not None for part in parts], dtype=bool)
        if task.kind == "tokens":
            flat = [
                label for part in parts if isinstance(part, SlotReading) for label in part.labels
            ]
            offsets = np.concatenate([[0], np.cumsum([len(w) for w in words])]).astype(np.int64)
            labels = np.array(flat, dtype=np.int64)
            found[task.name] = Prediction(
                labels=labels, scores=None, invalid=invalid, offsets=offsets, unanswered=missing
            )
        else:
            single = [part.label for part in parts if isinstance(part, Reading)]
            labels = np.array(single, dtype=np.int64)
            found[task.name] = Prediction(
                labels=labels, scores=None, invalid=invalid, unanswered=missing
            )
    return found


def generator_settings(generator: Generator) -> dict[str, Any]:
    """What a leaderboard says of a generator."""
    if hasattr(generator, "to_json"):
        return describe(generator)
    return {"name": generator.name}
