"""From what a model wrote to a tag for each word."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmembed.contract import Task
from llmembed.errors import UnsupportedError
from llmembed.prompts.json_in_prose import key, values_in, without_thoughts
from llmembed.prompts.slot_pieces import Piece, aligned, numbered, piece_of

OUTSIDE = "O"
_NOTHING = {"o", "0", "other", "others", "none", "null", "outside", "noslot", ""}
_PREFIX = re.compile(r"^\s*([bi])\s*[-_ ]\s*(?=\S)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class SlotReading:
    """A class's index for each word, -1 for a word whose tag is unknown; ``why`` no tags could be
    read. ``added``, ``cut_off``: words without a tag, and tags without a word."""

    labels: tuple[int, ...]
    why: str | None = None
    added: int = 0
    cut_off: int = 0
    unknown: int = 0


@dataclass(frozen=True, kw_only=True)
class SlotReader:
    """Reads BIO tags of words, or the bare names of slots: a run of one name is one slot."""

    task: Task
    _index: dict[str, int] = field(init=False, repr=False, compare=False)
    _slots: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        outside = [label for label in self.task.classes if key(label) in _NOTHING]
        if not outside:
            raise UnsupportedError(
                f"task {self.task.name!r} has no tag {OUTSIDE} for words that belong to no slot"
            )
        index = {label: place for place, label in enumerate(self.task.classes)}
        object.__setattr__(self, "_index", {**index, OUTSIDE: index[outside[0]]})
        object.__setattr__(self, "_slots", {key(name): name for name in self.slots})

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the slots, without B- and I-."""
        named = [_PREFIX.sub("", tag) for tag in self.task.classes if key(tag) not in _NOTHING]
        return tuple(dict.fromkeys(named))

    def read(self, answer: Any, words: Sequence[str]) -> SlotReading:
        """The tags in ``answer`` (text, or the value of a JSON field) for ``words``. Tags that name
        their words are laid on these, and where one can't be the answer is unreadable; words
        without a tag are O. Tags alone are laid on by position: too few are filled up with O, too
        many cut."""
        pieces = self._pieces(answer)
        if pieces is None or (words and not pieces):
            return self._unread(words, "no tags in the answer")
        tags: Sequence[str | None] = [piece.tag for piece in pieces]
        if any(piece.word is not None for piece in pieces) and not numbered(pieces):
            laid = aligned(pieces, words, lambda tag: self._label(tag, OUTSIDE)[1] == OUTSIDE)
            if laid is None:
                return self._unread(words, "tags that do not fit the words of the text")
            tags = laid
        read: list[int] = []
        before = OUTSIDE
        for tag in tags[: len(words)]:
            label, before = self._label(OUTSIDE if tag is None else tag, before)
            read.append(label)
        given = sum(tag is not None for tag in tags[: len(words)])
        unknown = read.count(-1)
        if given and unknown == given:
            return self._unread(words, "no known tag in the answer")
        short = max(0, len(words) - len(read))
        return SlotReading(
            labels=(*read, *(self._index[OUTSIDE],) * short),
            added=len(words) - given,
            cut_off=max(0, len(tags) - len(words)),
            unknown=unknown,
        )

    def _unread(self, words: Sequence[str], why: str) -> SlotReading:
        return SlotReading(labels=(-1,) * len(words), why=why)

    def _label(self, tag: str, before: str) -> tuple[int, str]:
        """The class of ``tag``, and the slot it belongs to; ``before``: that of the last word."""
        tag = tag.strip().strip("\"'`*")
        if key(tag) in _NOTHING:
            return self._index[OUTSIDE], OUTSIDE
        prefix = _PREFIX.match(tag)
        slot = self._slots.get(key(tag))
        if slot is None and prefix:
            slot = self._slots.get(key(tag[prefix.end() :]))
        else:
            prefix = None
        if slot is None:
            return -1, OUTSIDE
        inside = prefix[1].upper() == "I" if prefix else slot == before
        order = ("I", "B") if inside else ("B", "I")
        for name in (*(f"{mark}-{slot}" for mark in order), slot):
            if name in self._index:
                return self._index[name], slot
        raise AssertionError(f"slot {slot} is of no class")

    def _pieces(self, answer: Any) -> list[Piece] | None:
        if isinstance(answer, dict):
            return [Piece(tag=piece_of(tag).tag, word=str(word)) for word, tag in answer.items()]
        if isinstance(answer, list):
            return [piece_of(value) for value in answer]
        if not isinstance(answer, str):
            return None
        answer = without_thoughts(answer)
        lists = [value for value in values_in(answer, "[") if isinstance(value, list)]
        if lists:
            return self._pieces(max(lists, key=len))
        for value in values_in(answer, "{"):
            if isinstance(value, dict):
                inner = [part for part in value.values() if isinstance(part, (list, dict))]
                return self._pieces(inner[0] if len(inner) == 1 else value)
        return self._in_words(answer)

    def _in_words(self, answer: str) -> list[Piece] | None:
        """Tags without JSON around them: in brackets, divided by commas or white space, or as
        ``word: tag`` on a line each. The line with the most known tags is taken."""
        answer = re.sub(r"(?i)^\s*(?:slots|tags|labels|output)\s*[:=]\s*", "", answer)
        lines = [line for line in answer.strip(" \n`[]").splitlines() if line.strip()]
        if len(lines) > 1 and all(re.search(r"\S\s*[:\t=]\s*\S", line) for line in lines):
            return [piece_of(line) for line in lines]
        best: list[Piece] = []
        for line in lines:
            written = re.split(r"\s*,\s*" if "," in line else r"\s+", line.strip(" []`.,"))
            pieces = [piece_of(piece) for piece in written if piece.strip()]
            if self._known(pieces) > self._known(best):
                best = pieces
        # Prose may mention a slot; tags are mostly tags.
        return best if 2 * self._known(best) > len(best) else None

    def _known(self, pieces: Sequence[Piece]) -> int:
        return sum(self._label(piece.tag, OUTSIDE)[0] >= 0 for piece in pieces)

    def spoken(self, labels: Sequence[int]) -> list[str]:
        """The tags of a demonstration's words, as the data has them."""
        return [self.task.classes[label] for label in labels]


def tally(readings: Sequence[SlotReading]) -> Counter[str]:
    """Words without a tag, tags without a word and unknown tags of all ``readings`` together."""
    return Counter(
        padded=sum(reading.added for reading in readings),
        cut_off=sum(reading.cut_off for reading in readings),
        unknown=sum(reading.unknown for reading in readings),
    )
