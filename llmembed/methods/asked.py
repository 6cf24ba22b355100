"""What the prompting methods share: asking a generator, reading its answers, and what is done with
answers that can't be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

from llmembed.backbones import View
from llmembed.contract import Prediction, Runtime, Task, Usage
from llmembed.errors import ConfigError
from llmembed.generation import Answer, Generator, Prompt, Sampling
from llmembed.generation.building import describe
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
    """What becomes of an answer that can't be read. ``wrong``: it counts as wrong. ``retry``: the
    question is asked up to ``retries`` times again at ``temperature``. ``nearest``: the label
    whose name lies nearest to the answer in ``view`` is taken, and the row says so."""

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


SENTENCES = {
    "dropped": "{} demonstrations were dropped to fit the context",
    "cut": "{} texts were cut to fit the context",
    "failed": "{} questions got no answer",
    "too_long": "{} answers were cut at the longest length",
    "invalid": "{} answers could not be read",
    "asked_again": "{} questions were asked again because the answer could not be read",
    "nearest": "{} unreadable answers were given the label nearest in embedding space",
    "padded": "{} words had no tag and were taken as outside",
    "cut_off": "{} tags had no word and were left out",
    "unknown": "{} tags were unknown",
    "counted": "{} were voted on by majority, since a round told no log-probabilities",
    "without_rationale": "{} demonstrations had no rationale and were left out",
}


@dataclass(kw_only=True)
class Events:
    """What happened to the prompts and answers of one ``predict``."""

    texts: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def notes(self) -> tuple[str, ...]:
        """A sentence for each kind of event that happened."""
        said = [
            sentence.format(f"{self.counts[name]:,}")
            for name, sentence in SENTENCES.items()
            if self.counts[name]
        ]
        said += [f"{reason} ({count:,} times)" for reason, count in self.reasons.most_common(3)]
        return tuple(f"of {self.texts:,} texts: {sentence}" for sentence in said)


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

    def _took(self, usage: Usage) -> None:
        self._last["usage"] = self.predict_usage + usage


def ask(
    generator: Generator,
    question: Question,
    prompts: Sequence[Prompt],
    words: Sequence[int],
    sampling: Sampling,
    invalid: InvalidAnswers,
    events: Events,
    runtime: Runtime | None,
    *,
    seed: int = 0,
) -> tuple[list[Answer], list[Readings], Usage]:
    """Answers to ``prompts`` and what they say, after ``invalid`` did its work; and what embedding
    answers took. ``words``: how many each text has; ``seed``: of questions asked again. What the
    generator took is told by itself."""
    if not prompts:
        return [], [], Usage()
    answers = generator.generate(prompts, sampling, runtime)
    readings = [question.read(a.text, n) for a, n in zip(answers, words, strict=True)]
    if invalid.policy == "retry":
        for attempt in range(1, invalid.retries + 1):
            rows = [row for row, reading in enumerate(readings) if _unread(reading)]
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
                if not _unread(reading):
                    answers[row], readings[row] = answer, reading
    for answer, reading in zip(answers, readings, strict=True):
        events.counts["failed"] += answer.finish == "failed"
        events.counts["too_long"] += answer.finish == "length"
        events.counts["invalid"] += bool(_unread(reading))
        if answer.finish == "failed" and answer.reason:
            events.reasons[f"no answer: {answer.reason}"] += 1
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


def predictions(
    tasks: Sequence[Task],
    readings: Sequence[Readings],
    words: Sequence[int],
    scores: np.ndarray | None = None,
) -> dict[str, Prediction]:
    """One prediction per task; ``scores`` (N, C) of the only task where there are some."""
    found: dict[str, Prediction] = {}
    for task in tasks:
        parts = [reading[task.name] for reading in readings]
        invalid = np.array([part.why is not None for part in parts], dtype=bool)
        if task.kind == "tokens":
            flat = [
                label for part in parts if isinstance(part, SlotReading) for label in part.labels
            ]
            offsets = np.concatenate([[0], np.cumsum(words)]).astype(np.int64)
            labels = np.array(flat, dtype=np.int64)
            found[task.name] = Prediction(
                labels=labels, scores=None, invalid=invalid, offsets=offsets
            )
        else:
            single = [part.label for part in parts if isinstance(part, Reading)]
            labels = np.array(single, dtype=np.int64)
            found[task.name] = Prediction(labels=labels, scores=scores, invalid=invalid)
    return found


def generator_settings(generator: Generator) -> dict[str, Any]:
    """What a leaderboard says of a generator."""
    if hasattr(generator, "to_json"):
        return describe(generator)
    return {"name": generator.name}
