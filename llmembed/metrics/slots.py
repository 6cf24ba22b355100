"""Entities of BIO word labels, found and compared as ``seqeval`` does in its default mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from llmembed.metrics.counts import Counts

OUTSIDE = ("O", "Other", "other")
"""Tags of words that belong to no entity; an unreadable answer counts as one of them."""


@dataclass(frozen=True, kw_only=True)
class SlotCounts:
    """By entity type: how many are right, answered and true; by text: the same, int64 (N,)."""

    right: Counter[str]
    answered: Counter[str]
    support: Counter[str]
    right_by_text: npt.NDArray[np.int64]
    answered_by_text: npt.NDArray[np.int64]
    support_by_text: npt.NDArray[np.int64]

    @property
    def names(self) -> list[str]:
        """The entity types that occur, sorted."""
        return sorted({*self.right, *self.answered, *self.support})

    def counts(self, total: int) -> Counts:
        """By type, in the order of ``names``."""
        parts = [
            np.array([part[name] for name in self.names], dtype=np.int64)
            for part in (self.right, self.answered, self.support)
        ]
        return Counts(right=parts[0], answered=parts[1], support=parts[2], total=total)


Found = set[tuple[str, int, int]]


def entities(tags: Sequence[str]) -> Found:
    """Entities of one text: (type, first word, last word).

    An entity starts at ``B-x``, and at ``I-x`` after another type or after none; it goes on with
    ``I-x`` of its own type. A tag without ``B-`` or ``I-`` is taken as ``I-``.
    """
    found: Found = set()
    kind, start = "", 0
    for i, tag in enumerate([*tags, "O"]):
        if tag in OUTSIDE:
            prefix, name = "O", ""
        elif tag[:2] in ("B-", "I-"):
            prefix, name = tag[0], tag[2:]
        else:
            prefix, name = "I", tag
        if kind and (prefix == "B" or name != kind):
            found.add((kind, start, i - 1))
            kind = ""
        if name and not kind:
            kind, start = name, i
    return found


def slot_counts(
    classes: Sequence[str],
    truth: npt.NDArray[Any],
    answers: npt.NDArray[Any],
    offsets: npt.NDArray[np.int64],
) -> SlotCounts:
    """Compare the entities of the N texts whose words lie at ``offsets`` (N + 1,) of the flat
    indices ``truth`` and ``answers`` (W,)."""
    parts: tuple[Counter[str], Counter[str], Counter[str]] = (Counter(), Counter(), Counter())
    by_text = np.zeros((3, len(offsets) - 1), dtype=np.int64)
    for row, sets in enumerate(_by_text(classes, truth, answers, offsets)):
        for column, found in enumerate(sets):
            by_text[column, row] = len(found)
            parts[column].update(name for name, _, _ in found)
    return SlotCounts(
        right=parts[0],
        answered=parts[1],
        support=parts[2],
        right_by_text=by_text[0],
        answered_by_text=by_text[1],
        support_by_text=by_text[2],
    )


def counts_by_text(
    classes: Sequence[str],
    truth: npt.NDArray[Any],
    answers: npt.NDArray[Any],
    offsets: npt.NDArray[np.int64],
) -> npt.NDArray[np.int32]:
    """(3, N, K): right, answered and true entities of each text and of each of the K types."""
    sets = list(_by_text(classes, truth, answers, offsets))
    names = sorted({name for three in sets for found in three for name, _, _ in found})
    place = {name: number for number, name in enumerate(names)}
    counted = np.zeros((3, len(sets), len(names)), dtype=np.int32)
    for row, three in enumerate(sets):
        for column, found in enumerate(three):
            for name, _, _ in found:
                counted[column, row, place[name]] += 1
    return counted


def _by_text(
    classes: Sequence[str],
    truth: npt.NDArray[Any],
    answers: npt.NDArray[Any],
    offsets: npt.NDArray[np.int64],
) -> Iterator[tuple[Found, Found, Found]]:
    """Right, answered and true entities, text by text."""
    # Index -1, an unreadable answer, falls on the tag appended last.
    names = [*classes, "O"]
    for start, end in pairwise(offsets):
        true = entities([names[i] for i in truth[start:end]])
        said = entities([names[i] for i in answers[start:end]])
        yield true & said, said, true
