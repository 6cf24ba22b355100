"""Prompts that fit into a model's context: demonstrations go first, the farthest before the rest;
then the end of the text; instructions and cue never."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from llmembed.errors import UnsupportedError
from llmembed.prompts.messages import Prompt

Shown = TypeVar("Shown")
Build = Callable[[int, str, Sequence[Shown]], Prompt]
"""(row, text, blocks shown) -> prompt."""


class CountsTokens(Protocol):
    """What is to be known of a generator to fit its prompts."""

    @property
    def name(self) -> str: ...

    @property
    def context(self) -> int | None: ...

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]: ...


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """N prompts. ``shown``: how many demonstrations each kept (N,); ``dropped``: how many went,
    of all prompts together; ``cut``: how many texts lost their end."""

    prompts: list[Prompt]
    shown: list[int]
    dropped: int
    cut: int


def fit_prompts(
    generator: CountsTokens,
    build: Build[Shown],
    texts: Sequence[str],
    blocks: Sequence[Sequence[Shown]],
    *,
    answer_tokens: int,
) -> Fitted:
    """Build one prompt a text so that it and ``answer_tokens`` fit into the generator's context.

    ``blocks``: the demonstrations of each text, farthest first. Raises ``UnsupportedError`` where
    not even the instructions fit.
    """
    shown = [len(each) for each in blocks]
    prompts = [build(row, text, blocks[row]) for row, text in enumerate(texts)]
    if generator.context is None or not prompts:
        return Fitted(prompts=prompts, shown=shown, dropped=0, cut=0)
    room = generator.context - answer_tokens
    counts = generator.count_tokens(prompts)
    over = [row for row, count in enumerate(counts) if count > room]
    keep = _most(
        generator,
        over,
        [shown[row] - 1 for row in over],
        lambda row, number: build(row, texts[row], _last(blocks[row], number)),
        room,
    )
    too_long = [row for row, number in zip(over, keep, strict=True) if number < 0]
    for row, number in zip(over, keep, strict=True):
        shown[row] = max(0, number)
        prompts[row] = build(row, texts[row], _last(blocks[row], shown[row]))
    ends = _most(
        generator,
        too_long,
        [len(texts[row]) for row in too_long],
        lambda row, length: build(row, _start(texts[row], length), ()),
        room,
    )
    for row, length in zip(too_long, ends, strict=True):
        if length < 0:
            raise UnsupportedError(
                f"{generator.name}: the instructions and {answer_tokens} tokens of answer do not "
                f"fit into its context of {generator.context} tokens even without the text; use "
                "a shorter template, fewer labels or a model of longer context"
            )
        prompts[row] = build(row, _start(texts[row], length), ())
    dropped = sum(len(each) for each in blocks) - sum(shown)
    return Fitted(prompts=prompts, shown=shown, dropped=dropped, cut=len(too_long))


def _most(
    generator: CountsTokens,
    rows: Sequence[int],
    highest: Sequence[int],
    build: Callable[[int, int], Prompt],
    room: int,
) -> list[int]:
    """For each of ``rows`` the largest number in [0, highest] whose prompt fits, -1 for none;
    halved together, so that tokens are counted a few times for many prompts."""
    low = np.full(len(rows), -1)
    high = np.array(highest, dtype=np.int64)
    while (undecided := np.flatnonzero(low < high)).size:
        middle = (low + high + 1) // 2
        tried = [build(rows[int(i)], int(middle[i])) for i in undecided]
        for i, count in zip(undecided, generator.count_tokens(tried), strict=True):
            if count <= room:
                low[i] = middle[i]
            else:
                high[i] = middle[i] - 1
    return [int(number) for number in low]


def _last(blocks: Sequence[Shown], number: int) -> Sequence[Shown]:
    return blocks[len(blocks) - number :]


def _start(text: str, length: int) -> str:
    """The first ``length`` characters, without a word cut in two where there is white space."""
    if length >= len(text):
        return text
    part = text[:length]
    whole = part.rsplit(maxsplit=1)[0] if part.split()[1:] and not text[length].isspace() else part
    return whole.rstrip()
