"""Tags as a model writes them: alone, or each beside the word it is of."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llmembed.prompts.json_in_prose import key

_WORD_FIELDS = ("word", "token", "text", "phrase", "value")
_TAG_FIELDS = ("tag", "label", "slot", "type", "entity")
_EDGES = " \t\n\"'`*.,;:!?()[]{}"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A tag, and the word or words that it is said of, None where it stands alone."""

    tag: str
    word: str | None = None


def piece_of(value: Any) -> Piece:
    """The tag of ``word: tag``, ``[word, tag]``, ``{"word": …, "tag": …}`` or ``{word: tag}``."""
    if isinstance(value, dict):
        return _of_object(value)
    if isinstance(value, (list, tuple)):
        if not value:
            return Piece(tag="")
        last = piece_of(value[-1])
        return Piece(tag=last.tag, word=_written(value[-2]) if len(value) > 1 else last.word)
    written = "" if value is None else str(value)
    parts = re.split(r"[:=\t]|/(?=[BIO]\b)", written)
    word = written[: len(written) - len(parts[-1]) - 1].strip() if len(parts) > 1 else None
    return Piece(tag=parts[-1].strip(), word=word or None)


def _of_object(value: dict[Any, Any]) -> Piece:
    fields = {key(name): each for name, each in value.items()}
    tags = [fields[name] for name in _TAG_FIELDS if name in fields]
    words = [fields[name] for name in _WORD_FIELDS if name in fields]
    if tags:
        return Piece(tag=_written(tags[0]), word=_written(words[0]) if words else None)
    if len(value) == 1:
        ((word, tag),) = value.items()
        return Piece(tag=piece_of(tag).tag, word=str(word))
    return piece_of([*value.values()])


def _written(value: Any) -> str:
    return "" if value is None else str(value).strip()


def numbered(pieces: Sequence[Piece]) -> bool:
    """Whether the words of ``pieces`` are but their numbers, counted from 0 or 1."""
    found = [piece.word.strip(_EDGES) for piece in pieces if piece.word is not None]
    return len(found) == len(pieces) and any(
        found == [str(number) for number in range(start, start + len(found))] for start in (0, 1)
    )


def aligned(
    pieces: Sequence[Piece], words: Sequence[str], outside: Callable[[str], bool]
) -> list[str | None] | None:
    """The tag of each of ``words``, None for one that no piece names; None where a tag can't be
    laid on its word.

    A word that occurs as often as it is named is named in order. A name of several words is of all
    of them. ``outside`` says which tags mean no slot: their words need not be found.
    """
    if len(pieces) == len(words) and all(
        piece.word is None or _plain(piece.word) == _plain(word)
        for piece, word in zip(pieces, words, strict=True)
    ):
        return [piece.tag for piece in pieces]
    text = [_plain(word) for word in words]
    named: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for piece in pieces:
        if piece.word is None:
            return None
        named[tuple(_plain(word) for word in piece.word.split())].append(piece.tag)
    found: list[str | None] = [None] * len(words)
    # The longest first, so that a word in a phrase is not taken by itself.
    for name, tags in sorted(named.items(), key=lambda item: -len(item[0])):
        size = len(name)
        starts = [at for at in range(len(text) - size + 1) if tuple(text[at : at + size]) == name]
        free = [at for at in starts if all(tag is None for tag in found[at : at + size])]
        if not size or len(free) != len(tags):
            if all(map(outside, tags)):
                continue
            return None
        for at, tag in zip(free, tags, strict=True):
            found[at : at + size] = [tag, *(_inside(tag) for _ in name[1:])]
    return found


def _plain(word: str) -> str:
    return word.strip(_EDGES).casefold() or word


def _inside(tag: str) -> str:
    """The tag of a phrase's further words."""
    return re.sub(r"^(\s*)[bB](?=\s*[-_ ]\s*\S)", r"\1I", tag)
