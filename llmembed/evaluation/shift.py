"""In what test texts differ from those trained on: classes, words, and how well both are told
apart. The same figures serve texts that come later, against those a classifier was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llmembed.contract import Examples, Task
from llmembed.evaluation.domains import (
    FEWEST,
    ROWS,
    Embed,
    Separation,
    both_sides,
    drawn,
    told_apart_by,
    told_apart_by_words,
    words_of,
)
from llmembed.evaluation.gaps import LEVEL, proportions_differ, two_sided

TRAIN_ROWS = 20_000
"""Training texts whose words count as seen, at most."""
MOST_MOVED = 3
LEAST_EXPECTED = 5
"""Texts of a class expected on each side, below which chi-square takes classes together."""
LEAST_DISTANCE = 0.02


@dataclass(frozen=True, kw_only=True)
class Moved:
    """A class and its share of the training (and validation) texts and of the test texts."""

    name: str
    train: float
    test: float


@dataclass(frozen=True, kw_only=True)
class ClassShares:
    """How the classes of one task differ between training and test.

    ``distance``: for ``single`` the total variation, the share of texts that would have to change
    class; otherwise the largest difference of a label's share of the texts (a tag counts once a
    text). ``p``: how often chance alone makes the shares differ as much, by chi-square; otherwise
    by the test for two proportions of that label, times the labels. ``moved``: the classes that
    differ most, largest difference first.
    """

    task: str
    distance: float
    p: float
    moved: tuple[Moved, ...]

    @property
    def beyond_chance(self) -> bool:
        return self.p <= LEVEL and self.distance >= LEAST_DISTANCE

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ClassShares:
        return cls(**{**data, "moved": tuple(Moved(**each) for each in data["moved"])})


@dataclass(frozen=True, kw_only=True)
class Unseen:
    """The share of words (occurrences) that no training text holds, in validation and in test.
    ``p``: how often chance alone makes both differ as much, texts being drawn."""

    valid: float
    test: float
    p: float

    @property
    def distance(self) -> float:
        return abs(self.test - self.valid)

    @property
    def beyond_chance(self) -> bool:
        return self.p <= LEVEL and self.distance >= LEAST_DISTANCE

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Unseen:
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class Shift:
    """In what test differs from training and validation.

    ``classes`` go by task. ``words`` and ``embeddings``: how well training and test texts are told
    apart by either; None where there are too few texts, no words, or no embeddings at hand.
    ``known_valid``, ``known_test``: shares of the texts that stand, letter by letter, among the
    training texts.
    """

    classes: tuple[ClassShares, ...]
    unseen: Unseen | None
    words: Separation | None
    embeddings: Separation | None
    known_valid: float
    known_test: float

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Shift:
        read = {
            "classes": tuple(ClassShares.from_json(each) for each in data["classes"]),
            "unseen": data["unseen"] and Unseen.from_json(data["unseen"]),
            "words": data["words"] and Separation.from_json(data["words"]),
            "embeddings": data["embeddings"] and Separation.from_json(data["embeddings"]),
        }
        return cls(**{**data, **read})


def shift_between(
    tasks: Sequence[Task],
    train: Examples,
    valid: Examples,
    test: Examples,
    *,
    embed: Embed | None = None,
    most: int = ROWS,
    seed: int = 0,
) -> Shift:
    """What differs between ``train`` with ``valid`` and ``test``.

    Class shares are of all texts. Words are those of ``most`` validation and test texts, against
    ``TRAIN_ROWS`` training texts; training and test are told apart on ``most`` distinct texts of
    each, so that a million rows take seconds. ``embed``: gives features, float (N, F), of the
    texts it is handed, those drawn alone.
    """
    seen = set(train.texts)
    sides = both_sides(train.texts, test.texts, most=most, seed=seed)
    return Shift(
        classes=tuple(_class_shares(task, (train, valid), test) for task in tasks),
        unseen=_unseen(
            drawn(train.texts, TRAIN_ROWS, seed),
            drawn(valid.texts, most, seed),
            drawn(test.texts, most, seed),
        ),
        words=sides and told_apart_by_words(*sides, seed=seed),
        embeddings=told_apart_by(embed, *sides, seed=seed) if sides and embed else None,
        known_valid=_share(seen, valid.texts),
        known_test=_share(seen, test.texts),
    )


def _share(seen: set[str], texts: Sequence[str]) -> float:
    return sum(text in seen for text in texts) / len(texts) if len(texts) else 0.0


def _class_shares(task: Task, before: Sequence[Examples], test: Examples) -> ClassShares:
    first = np.sum([_texts_with(task, part) for part in before], axis=0)
    second = _texts_with(task, test)
    n, m = sum(map(len, before)), len(test)
    was, now = first / max(n, 1), second / max(m, 1)
    apart = np.abs(was - now)
    largest = np.argsort(-apart, kind="stable")[:MOST_MOVED]
    if task.kind == "single":
        distance, p = float(apart.sum()) / 2, _chi_square(first, second)
    else:
        distance = float(apart.max())
        each = [proportions_differ(a, n, b, m) for a, b in zip(was, now, strict=True)]
        p = min(1.0, min(each) * len(each))
    return ClassShares(
        task=task.name,
        distance=distance,
        p=p,
        moved=tuple(
            Moved(name=task.classes[i], train=float(was[i]), test=float(now[i]))
            for i in largest
            if apart[i] > 0
        ),
    )


def _texts_with(task: Task, examples: Examples) -> npt.NDArray[np.float64]:
    """In how many texts each class stands, float64 (C,)."""
    labels, n = examples.labels[task.name], len(task.classes)
    if task.kind == "single":
        return np.bincount(labels, minlength=n).astype(np.float64)
    if task.kind == "multi":
        counts: npt.NDArray[np.float64] = np.asarray(labels, dtype=bool).sum(0, dtype=np.float64)
        return counts
    text = np.repeat(np.arange(len(examples)), np.diff(examples.offsets))
    pairs = np.unique(text * n + labels)
    return np.bincount(pairs % n, minlength=n).astype(np.float64)


def _chi_square(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> float:
    """p of two rows of counts (C,) under one distribution; the rarest classes are taken together
    until ``LEAST_EXPECTED`` texts are expected of them on either side."""
    from scipy.special import chdtrc

    n, m = first.sum(), second.sum()
    if not n or not m:
        return 1.0
    bins: list[npt.NDArray[np.float64]] = []
    rest = np.zeros(2)
    for i in np.argsort(first + second, kind="stable"):
        rest = rest + np.array([first[i], second[i]])
        if rest.sum() * min(n, m) / (n + m) >= LEAST_EXPECTED:
            bins.append(rest)
            rest = np.zeros(2)
    if rest.any() and bins:
        bins[-1] = bins[-1] + rest
    if len(bins) < 2:
        return 1.0
    table = np.array(bins)
    expected = table.sum(axis=1, keepdims=True) * [n, m] / (n + m)
    return float(chdtrc(len(bins) - 1, ((table - expected) ** 2 / expected).sum()))


def _unseen(train: Sequence[str], valid: Sequence[str], test: Sequence[str]) -> Unseen | None:
    if min(len(valid), len(test)) < FEWEST:
        return None
    seen: set[str] = set()
    for text in train:
        seen.update(words_of(text))
    counted = [_unseen_share(seen, texts) for texts in (valid, test)]
    if any(words == 0 for _, _, words in counted):
        return None
    (of_valid, var_valid, _), (of_test, var_test, _) = counted
    p = two_sided(abs(of_test - of_valid), math.sqrt(var_valid + var_test))
    return Unseen(valid=of_valid, test=of_test, p=p)


def _unseen_share(seen: set[str], texts: Sequence[str]) -> tuple[float, float, int]:
    """The share, its variance over draws of texts (a ratio's, linearised), the words counted."""
    words = [words_of(text) for text in texts]
    lengths = np.array([len(each) for each in words], dtype=np.float64)
    new = np.array([sum(word not in seen for word in each) for each in words], dtype=np.float64)
    total = lengths.sum()
    if not total:
        return 0.0, 0.0, 0
    share = new.sum() / total
    return float(share), float(((new - share * lengths) ** 2).sum() / total**2), int(total)
