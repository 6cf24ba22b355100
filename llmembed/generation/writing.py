"""One answer while it is written: when it ends, and what of it is kept."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

from llmembed.generation.request import Answer, Sampling

_MORE_TOKENS = 4
"""Decoded besides the longest stop word's bytes: a tail may begin inside a character."""


class Writing:
    """``add`` tokens until it says that the answer has ended. ``ends``: tokens that end it."""

    def __init__(self, tokeniser: Any, ends: Collection[int], sampling: Sampling) -> None:
        self._tokeniser = tokeniser
        self._ends = ends
        self._sampling = sampling
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._finish: Literal["stop", "length"] | None = None
        self._ended = False
        sizes = [len(word.encode("utf-8", "replace")) for word in sampling.stop]
        self._tail = max(sizes, default=0) + _MORE_TOKENS

    def add(self, token: int, logprob: float | None) -> bool:
        self._ids.append(token)
        if logprob is not None:
            self._logprobs.append(logprob)
        if token in self._ends:
            self._finish, self._ended = "stop", True
        elif self._sampling.stop:
            # No token is shorter than a byte, so a word that just came lies in this tail.
            tail = self._text(self._ids[-self._tail :])
            if any(word in tail for word in self._sampling.stop) and self._stop() is not None:
                self._finish = "stop"
        if self._finish is None and len(self._ids) >= self._sampling.max_tokens:
            self._finish = "length"
        return self._finish is not None

    def answer(self, prompt_tokens: int) -> Answer:
        """``completion_tokens`` are all that were computed, the end and stop words included."""
        text = self._text(self._words)
        stop = self._stop()
        text = text if stop is None else text[:stop]
        return Answer(
            text=text,
            finish=self._finish or "length",
            prompt_tokens=prompt_tokens,
            completion_tokens=len(self._ids),
            logprobs=self._told(text) if self._sampling.logprobs else None,
        )

    @property
    def _words(self) -> list[int]:
        return self._ids[:-1] if self._ended else self._ids

    def _stop(self) -> int | None:
        text = self._text(self._words)
        found = [place for word in self._sampling.stop if (place := text.find(word)) >= 0]
        return min(found, default=None)

    def _told(self, text: str) -> tuple[tuple[str, float], ...]:
        """Each token that begins within the text kept, with what it adds to the text."""
        told: list[tuple[str, float]] = []
        before = ""
        for i, logprob in enumerate(self._logprobs[: len(self._words)]):
            if len(before) >= len(text) and text:
                break
            now = self._text(self._words[: i + 1])
            told.append((now[len(before) :], logprob))
            before = now
        return tuple(told)

    def _text(self, ids: list[int]) -> str:
        return str(
            self._tokeniser.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )
