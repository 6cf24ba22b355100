"""What every generator of this room shares: equal prompts are asked once, answers are kept as they
come, and what they took is told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

from llmembed.contract import Runtime, Usage
from llmembed.generation.accounts import Accounts
from llmembed.generation.cache import Given, ResponseCache, Scored, answer_key
from llmembed.generation.request import Answer, Sampling
from llmembed.prompts import Prompt

KeepAnswers = Callable[[Mapping[str, Given]], None]
KeepScores = Callable[[Mapping[str, Scored]], None]


class CachedGenerator(ABC):
    """Base of the local and the endpoint generator; see ``Generator``.

    A subclass answers what no cache holds and calls ``keep`` with answers, or scores, by key as
    they come.
    """

    def __init__(self, cache: ResponseCache | None) -> None:
        self.cache = cache
        self._accounts = Accounts()
        self._has_answered = False

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What tells this model's answers from any other's in the cache."""

    @abstractmethod
    def missing_scores(
        self, prompts: Sequence[Prompt], candidates: Sequence[str]
    ) -> list[tuple[Prompt, tuple[str, ...]]]:
        """The distinct prompts, each with the candidates that ``score`` would have to score."""

    @abstractmethod
    def scoring_tokens(self, prompt: Prompt, candidates: Sequence[str]) -> Usage:
        """The tokens that scoring ``candidates`` takes, estimated where the tokeniser is not
        known."""

    @abstractmethod
    def _answer(
        self,
        prompts: Mapping[str, Prompt],
        sampling: Sampling,
        keep: KeepAnswers,
        runtime: Runtime | None,
    ) -> None: ...

    def identity_on(self, runtime: Runtime | None) -> dict[str, Any]:
        """``identity``, and what ``runtime`` adds to it."""
        return self.identity

    def missing(
        self, prompts: Sequence[Prompt], sampling: Sampling, runtime: Runtime | None = None
    ) -> list[Prompt]:
        """The distinct prompts that the cache does not hold: what ``generate`` would ask."""
        identity = self.identity_on(runtime)
        distinct = {answer_key(identity, prompt, sampling): prompt for prompt in prompts}
        kept = self.cache.get(distinct) if self.cache is not None else {}
        return [prompt for key, prompt in distinct.items() if key not in kept]

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, runtime: Runtime | None = None
    ) -> list[Answer]:
        """See ``Generator.generate``.

        An endpoint is asked from this process, also with a runtime. Raises ``BudgetError``;
        ``UserError`` where it refuses for good (``ConfigError`` for the key, ``ModelError`` where
        it has no such model); ``NoAnswerError`` where ``give_up_after`` calls in a row got no
        answer, or its limits let none through for ``patience_seconds``; of a local model
        ``UserError`` where a prompt and its longest answer do not fit the context, and
        ``WorkerError``."""
        identity = self.identity_on(runtime)
        keys = [answer_key(identity, prompt, sampling) for prompt in prompts]
        distinct = dict(zip(keys, prompts, strict=True))
        given = self.cache.get(distinct) if self.cache is not None else {}
        self._has_answered |= bool(given)
        for one in given.values():
            self._accounts.add(one.usage, cached=True)

        def keep(fresh: Mapping[str, Given]) -> None:
            for one in fresh.values():
                self._accounts.add(one.usage, cached=False)
            if self.cache is not None:
                self.cache.put(self.name, fresh)
            given.update(fresh)

        missing = {key: prompt for key, prompt in distinct.items() if key not in given}
        if missing:
            self._answer(missing, sampling, keep, runtime)
        return [given[key].answer for key in keys]

    def used(self) -> Usage:
        """See ``Generator.used``."""
        return self._accounts.used()

    def paid(self) -> Usage:
        """See ``Generator.paid``."""
        return self._accounts.paid()

    def _scores_kept(self, keys: Sequence[str]) -> dict[str, Scored]:
        """Those of ``keys`` that the cache holds, without an account of them."""
        return self.cache.get_scores(keys) if self.cache is not None else {}

    def _scores(self, keys: Sequence[str]) -> tuple[dict[str, Scored], KeepScores]:
        """Those of ``keys`` that the cache holds, and what keeps others there beside them; one
        that is no number is not kept in the cache."""
        scored = self._scores_kept(keys)
        self._has_answered |= bool(scored)
        for one in scored.values():
            self._accounts.add(one.usage, cached=True)

        def keep(fresh: Mapping[str, Scored]) -> None:
            for one in fresh.values():
                self._accounts.add(one.usage, cached=False)
            if self.cache is not None:
                sound = {k: one for k, one in fresh.items() if all(map(isfinite, one.scores))}
                self.cache.put_scores(self.name, sound)
            scored.update(fresh)

        return scored, keep
