"""Several answers to one text, and the label they agree on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from llmembed.contract import Prediction
from llmembed.errors import ConfigError
from llmembed.generation import Answer, Sampling
from llmembed.prompts.worked_answers import label_probability

Vote = Literal["majority", "weighted"]
SMALLEST = 1e-9
"""The least weight of a vote."""


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """``number`` answers to every text at ``temperature``, each with a seed of its own. ``vote``:
    ``majority`` counts them; ``weighted`` counts each by the probability of its label's tokens, and
    an answer without a line for its label hardly counts. Where a round of a text came without
    log-probabilities its weight can't be compared with the others', so that text's rounds are
    counted. Scores are a label's share of the votes."""

    number: int = 3
    temperature: float = 0.7
    vote: Vote = "majority"

    def __post_init__(self) -> None:
        if not 1 <= self.number <= 100:
            raise ConfigError(
                f"carp answers in one round or more, at most 100, not in {self.number}"
            )
        if self.number > 1 and self.temperature <= 0:
            raise ConfigError("at temperature 0 all rounds are the same: ask for one round")
        if self.vote not in ("majority", "weighted"):
            raise ConfigError(f"unknown vote {self.vote!r}; known are majority, weighted")

    def sampling(self, number: int, *, seed: int, max_tokens: int, stop: Sequence[str]) -> Sampling:
        """How round ``number`` is asked. No two rounds of any two seeds share a seed."""
        return Sampling(
            temperature=self.temperature,
            max_tokens=max_tokens,
            stop=tuple(stop),
            seed=seed * self.number + number if self.temperature > 0 else 0,
            logprobs=self.vote == "weighted",
        )


def weight_of(answer: Answer, names: Sequence[str]) -> float:
    """Probability of the label as it was written, NaN where the model tells none; the least weight
    where it tells some but no line gives a label. ``names``: what labels may be called."""
    if not answer.logprobs:
        return math.nan
    return max(label_probability(answer.logprobs, names) or 0.0, SMALLEST)


def comparable(
    labels: npt.NDArray[np.int64], weights: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], int]:
    """``weights`` (R, N) with 1 throughout for each text of which a round that votes has none
    (NaN), and how many texts those are. ``labels`` (R, N): -1 does not vote."""
    unknown = (np.isnan(weights) & (labels >= 0)).any(axis=0)
    return np.where(unknown | np.isnan(weights), 1.0, weights), int(unknown.sum())


def voted(
    labels: npt.NDArray[np.int64], weights: npt.NDArray[np.float64], classes: int
) -> Prediction:
    """The label of the most votes. ``labels`` (R, N), -1 where a round could not be read: it does
    not vote, and a text that no round could be read of is invalid. Scores (N, C) are shares of the
    votes, all 0 where there was none. A tie goes to the label that was answered first.
    """
    rounds, texts = labels.shape
    scores = np.zeros((texts, classes))
    for number in range(rounds):
        rows = np.flatnonzero(labels[number] >= 0)
        scores[rows, labels[number, rows]] += weights[number, rows]
    most = scores.max(axis=1, initial=0.0)
    chosen = np.full(texts, -1, dtype=np.int64)
    for number in reversed(range(rounds)):
        rows = np.flatnonzero(labels[number] >= 0)
        tops = scores[rows, labels[number, rows]] >= most[rows] * (1 - 1e-9)
        chosen[rows[tops]] = labels[number, rows[tops]]
    total = scores.sum(axis=1, keepdims=True)
    shares = np.divide(scores, total, out=np.zeros_like(scores), where=total > 0)
    return Prediction(labels=chosen, scores=shares.astype(np.float32), invalid=chosen < 0)
