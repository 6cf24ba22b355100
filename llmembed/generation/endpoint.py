"""Generators behind an OpenAI-compatible address: a hosted model, vLLM, our test server."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llmembed.contract import Runtime, Usage
from llmembed.errors import ConfigError, UnsupportedError
from llmembed.generation import completions
from llmembed.generation.addresses import check_key_variable, checked_address, key_in
from llmembed.generation.budget import Budget
from llmembed.generation.cache import Given, ResponseCache, Scored
from llmembed.generation.cached import CachedGenerator, KeepAnswers
from llmembed.generation.calling import Call, Calls, Limits, Missed, Reply, Unanswered
from llmembed.generation.calls import CallMaker
from llmembed.generation.loop import run_to_end
from llmembed.generation.pacing import Pace
from llmembed.generation.progress import progress
from llmembed.generation.prompt_tokens import PromptTokeniser
from llmembed.generation.refusals import QUOTED, struck
from llmembed.generation.request import Answer, Sampling
from llmembed.metering import Meter, Prices
from llmembed.prompts import Prompt

if TYPE_CHECKING:
    import numpy.typing as npt

logger = logging.getLogger(__name__)

OPENAI = "https://api.openai.com/v1"


class EndpointGenerator(CachedGenerator):
    """``model`` at ``base_url``, asked through the ``openai`` client.

    ``api_key_env`` names the environment variable that holds the key, None where none is needed;
    the key itself is read when the first call is sent and kept nowhere. ``retries``: further tries
    of a call that failed (5xx), timed out or was cut, with exponential backoff and jitter; a call
    that got no answer after these is ``failed``, and ``give_up_after`` of them in a row end the
    run; what was answered is kept. A call refused for its rate (429) waits, as long as the endpoint
    says, however often, and fewer calls are sent at once; with nothing answered for
    ``patience_seconds`` the run ends. A prompt that is not taken (a filter, a context too short) is
    ``refused``, and others are asked, unless it was so with the first ones. ``budget``: what may be
    spent, by its own prices.
    ``tokenizer``: folder or hub id of the model's, for exact counts; without it they are
    over-estimates (``counts_exactly``). ``longest_answer_field``: newer hosted models want
    ``max_completion_tokens``. ``scores``: ``echo`` where ``/completions`` gives the
    log-probabilities of its prompt, as vLLM does. Prompts that are equal are asked once in a call.

    What ``used`` and ``paid`` say of seconds is this process's clock: of each answer, from the one
    before; of joules, this process's own. Tokens are as the endpoint counted them.
    """

    def __init__(
        self,
        *,
        model: str,
        base_url: str = OPENAI,
        api_key_env: str | None = "OPENAI_API_KEY",
        concurrency: int = 16,
        timeout_seconds: float = 60.0,
        retries: int = 5,
        give_up_after: int = 20,
        patience_seconds: float = 600.0,
        cache: ResponseCache | None = None,
        budget: Budget | None = None,
        prices: Prices | None = None,
        context: int | None = None,
        machinery_only: str | None = None,
        tokenizer: str | None = None,
        longest_answer_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens",
        scores: Literal["echo"] | None = None,
    ) -> None:
        address = checked_address(base_url)
        check_key_variable(api_key_env)
        if min(concurrency, give_up_after) < 1 or min(retries, patience_seconds) < 0:
            raise ConfigError("concurrency, give_up_after: at least 1; retries, patience: 0")
        if not timeout_seconds > 0:
            raise ConfigError("timeout_seconds is above 0")
        self.model = model
        self.base_url = base_url
        self.api_key_env = api_key_env
        super().__init__(cache)
        self.prices = prices or (budget.prices if budget else Prices())
        self.budget = budget or Budget(prices=self.prices)
        self.limits = Limits(
            concurrency=concurrency,
            timeout_seconds=timeout_seconds,
            retries=retries,
            give_up_after=give_up_after,
        )
        self._unanswered = Unanswered()
        self._said: set[str] = set()
        self._pace = Pace(most=concurrency, patience_seconds=patience_seconds)
        self._host = f"{address.hostname}" + (f":{address.port}" if address.port else "")
        self._path = address.path.rstrip("/")
        self._context = context
        self._machinery_only = machinery_only
        self._calls = CallMaker(
            model=model,
            longest=longest_answer_field,
            tokeniser=PromptTokeniser(location=tokenizer) if tokenizer else None,
        )
        self._scores_by = scores

    def __repr__(self) -> str:
        return f"EndpointGenerator({self.name!r})"

    def to_json(self) -> dict[str, Any]:
        """The description from which ``build_generator`` makes it again: without the key, and
        without what belongs to one run (cache, budget, prices)."""
        told = {
            "kind": "endpoint",
            "model": self.model,
            "base_url": self.base_url,
            "concurrency": self.limits.concurrency,
            "timeout_seconds": self.limits.timeout_seconds,
            "retries": self.limits.retries,
            "give_up_after": self.limits.give_up_after,
            "patience_seconds": self._pace.patience_seconds,
            "context": self._context,
            "machinery_only": self._machinery_only,
            "tokenizer": self._calls.tokeniser and self._calls.tokeniser.location,
            "longest_answer_field": self._calls.longest,
            "scores": self._scores_by,
        }
        named = {name: value for name, value in told.items() if value is not None}
        # None is told: it says that no key is needed.
        return {**named, "api_key_env": self.api_key_env}

    @property
    def name(self) -> str:
        return f"{self.model}@{self._host}"

    @property
    def context(self) -> int | None:
        return self._context

    @property
    def machinery_only(self) -> str | None:
        return self._machinery_only

    @property
    def gives_scores(self) -> bool:
        return self._scores_by is not None

    @property
    def counts_exactly(self) -> bool:
        """Whether ``count_tokens`` knows the model's tokeniser."""
        return self._calls.tokeniser is not None

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this model's answers from any other's in the cache."""
        return {"model": self.model, "host": self._host, "path": self._path}

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """See ``Generator.count_tokens``; without ``tokenizer`` an over-estimate."""
        return self._calls.count(prompts)

    def _answer(
        self,
        prompts: Mapping[str, Prompt],
        sampling: Sampling,
        keep: KeepAnswers,
        runtime: Runtime | None,
    ) -> None:
        secret = key_in(self.api_key_env, self.name)

        def done(call: Call, got: Reply[Answer] | Missed, took: Usage) -> None:
            answer = completions.missed(got) if isinstance(got, Missed) else got.value
            if answer.reason is not None:
                answer = replace(answer, reason=struck(answer.reason, secret, 2 * QUOTED))
            keep({call.key: Given(answer=answer, usage=took)})

        calls = self._calls.chats(prompts, sampling)
        self._call(calls, completions.chat, completions.read_chat, done)

    def score(
        self,
        prompts: Sequence[Prompt],
        candidates: Sequence[str],
        runtime: Runtime | None = None,
    ) -> npt.NDArray[np.float32]:
        """See ``Generator.score``: one call for each prompt and candidate. Without ``tokenizer``
        the prompt is sent in the plain form, with no template."""
        if self._scores_by is None:
            raise UnsupportedError(
                f"{self.name} tells no log-probabilities of given answers; where its /completions "
                "has echo and logprobs (vLLM), set scores to echo, or use a local model"
            )
        calls = self._calls.echoes(prompts, candidates, self.identity)
        distinct = {call.key: call for row in calls for call in row}
        scored, keep = self._scores([*distinct])

        def done(call: Call, got: Reply[float] | Missed, took: Usage) -> None:
            if isinstance(got, Missed):
                score = float("-inf") if got.refused else float("nan")
            else:
                score = got.value
            keep({call.key: Scored(scores=(score,), usage=took)})

        missing = [call for key, call in distinct.items() if key not in scored]
        self._call(missing, completions.echo, completions.read_echo, done)
        values = [[scored[call.key].scores[0] for call in row] for row in calls]
        scores = np.asarray(values, dtype=np.float32).reshape(len(prompts), len(candidates))
        scores[np.isneginf(scores).any(axis=1)] = -np.inf  # refused once is not compared
        return scores

    def missing_scores(
        self, prompts: Sequence[Prompt], candidates: Sequence[str]
    ) -> list[tuple[Prompt, tuple[str, ...]]]:
        """See ``CachedGenerator.missing_scores``; each pair would be a call."""
        calls = self._calls.echoes(prompts, candidates, self.identity)
        known = {*self._scores_kept([call.key for row in calls for call in row])}
        found: list[tuple[Prompt, tuple[str, ...]]] = []
        for prompt, row in zip(prompts, calls, strict=True):
            named = zip(row, candidates, strict=True)
            left = {call.key: name for call, name in named if call.key not in known}
            known.update(left)
            if left:
                found.append((prompt, tuple(left.values())))
        return found

    def scoring_tokens(self, prompt: Prompt, candidates: Sequence[str]) -> Usage:
        """See ``CachedGenerator.scoring_tokens``."""
        return self._calls.scoring(prompt, candidates)

    def paid(self) -> Usage:
        """See ``Generator.paid``. Calls that got no answer but may have been billed are not in
        it: ``budget.spending.unconfirmed`` has them."""
        return super().paid()

    def _call(
        self,
        calls: Sequence[Call],
        send: Any,
        read: Any,
        done: Callable[[Call, Reply[Any] | Missed, Usage], None],
    ) -> None:
        """``done`` is told of each reply, or of why there is none, and of what it took."""
        if not calls:
            return
        secret = key_in(self.api_key_env, self.name)
        self._unanswered.answered |= self._has_answered
        meter = Meter()
        before = Usage()

        with meter, progress(f"ask {self.name}", len(calls)) as advance:

            def told(call: Call, reply: Reply[Any] | None, missed: Missed | None) -> None:
                nonlocal before
                now = meter.usage
                usage, before = now + before.scaled(-1), now
                got = missed or reply
                assert got is not None, "a call ends in a reply, or in why there is none"
                if missed is not None:
                    what = "was refused" if missed.refused else "got no answer"
                    # One line for what happens to many.
                    log = logger.info if missed.reason in self._said else logger.warning
                    self._said.add(missed.reason)
                    log("%s: a prompt %s: %s", self.name, what, missed.reason)
                elif reply is not None:
                    usage += Usage(
                        prompt_tokens=reply.prompt_tokens,
                        completion_tokens=reply.completion_tokens,
                        calls=1,
                    )
                done(call, got, usage)
                advance(1)

            work: Calls[Any] = Calls(
                client=partial(
                    completions.client, self.base_url, secret, self.limits.timeout_seconds
                ),
                send=send,
                read=read,
                done=told,
                budget=self.budget,
                limits=self.limits,
                pace=self._pace,
                unanswered=self._unanswered,
                endpoint=self.name,
                key_variable=self.api_key_env,
                secret=secret,
            )
            run_to_end(partial(work.run, calls))
