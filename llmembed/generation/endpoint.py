"""Generators behind an OpenAI-compatible address: a hosted model, vLLM, our test server."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import numpy as np

from llmembed.contract import Runtime, Usage
from llmembed.errors import ConfigError, UnsupportedError
from llmembed.generation import completions
from llmembed.generation.accounts import Accounts
from llmembed.generation.budget import Budget
from llmembed.generation.cache import Given, ResponseCache, Scored, answer_key, score_key
from llmembed.generation.calling import Call, Calls, Limits, Reply, run_to_end
from llmembed.generation.progress import progress
from llmembed.generation.prompt_tokens import PromptTokeniser, tokens_at_most, tokens_estimated
from llmembed.generation.request import Answer, Prompt, Sampling
from llmembed.metering import Meter, Prices

if TYPE_CHECKING:
    import numpy.typing as npt

logger = logging.getLogger(__name__)

OPENAI = "https://api.openai.com/v1"


class EndpointGenerator:
    """``model`` at ``base_url``, asked through the ``openai`` client.

    ``api_key_env`` names the environment variable that holds the key, None where none is needed;
    the key itself is read when the first call is sent and kept nowhere. ``retries``: further tries
    of a call that was refused for its rate (429), failed (5xx), timed out or was cut, with
    exponential backoff and jitter. ``budget``: what may be spent, by its own prices.
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
        cache: ResponseCache | None = None,
        budget: Budget | None = None,
        prices: Prices | None = None,
        context: int | None = None,
        machinery_only: str | None = None,
        tokenizer: str | None = None,
        longest_answer_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens",
        scores: Literal["echo"] | None = None,
    ) -> None:
        address = urlsplit(base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ConfigError("base_url must start with http:// or https:// and name a host")
        if address.username or address.password or address.query:
            raise ConfigError("base_url must hold no name, password or query: use api_key_env")
        if api_key_env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", api_key_env):
            # Not repeated: it may be the key.
            raise ConfigError(
                "api_key_env is the name of an environment variable in capitals, such as "
                "OPENAI_API_KEY, never the key itself"
            )
        if concurrency < 1 or retries < 0 or not timeout_seconds > 0:
            raise ConfigError(
                "concurrency is at least 1, retries at least 0 and timeout_seconds above 0"
            )
        self.model = model
        self.base_url = base_url
        self.api_key_env = api_key_env
        self.cache = cache
        self.prices = prices or (budget.prices if budget else Prices())
        self.budget = budget or Budget(prices=self.prices)
        self.limits = Limits(
            concurrency=concurrency, timeout_seconds=timeout_seconds, retries=retries
        )
        self._host = address.hostname + (f":{address.port}" if address.port else "")
        self._path = address.path.rstrip("/")
        self._context = context
        self._machinery_only = machinery_only
        self._tokeniser = PromptTokeniser(location=tokenizer) if tokenizer else None
        self._longest = longest_answer_field
        self._scores = scores
        self._accounts = Accounts()

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
            "context": self._context,
            "machinery_only": self._machinery_only,
            "tokenizer": self._tokeniser and self._tokeniser.location,
            "longest_answer_field": self._longest,
            "scores": self._scores,
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
        return self._scores is not None

    @property
    def counts_exactly(self) -> bool:
        """Whether ``count_tokens`` knows the model's tokeniser."""
        return self._tokeniser is not None

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this model's answers from any other's in the cache."""
        return {"model": self.model, "host": self._host, "path": self._path}

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """See ``Generator.count_tokens``; without ``tokenizer`` an over-estimate."""
        if self._tokeniser is not None:
            return [len(row) for row in self._tokeniser.encode(prompts)]
        return [tokens_estimated(prompt) for prompt in prompts]

    def missing(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Prompt]:
        """The distinct prompts that the cache does not hold: what ``generate`` would ask."""
        distinct = {answer_key(self.identity, prompt, sampling): prompt for prompt in prompts}
        kept = self.cache.get(distinct) if self.cache is not None else {}
        return [prompt for key, prompt in distinct.items() if key not in kept]

    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, runtime: Runtime | None = None
    ) -> list[Answer]:
        """See ``Generator.generate``. All calls are sent from this process, also with a runtime.

        Raises ``BudgetError``; ``UserError`` where the endpoint refuses for good (``ConfigError``
        for the key, ``ModelError`` where it has no such model or answers nothing at all)."""
        keys = [answer_key(self.identity, prompt, sampling) for prompt in prompts]
        distinct = dict(zip(keys, prompts, strict=True))
        given = self.cache.get(distinct) if self.cache is not None else {}
        for one in given.values():
            self._accounts.add(one.usage, cached=True)

        def keep(call: Call, answer: Answer, usage: Usage) -> None:
            given[call.key] = Given(answer=answer, usage=usage)
            if self.cache is not None:
                self.cache.put(self.name, {call.key: given[call.key]})

        missing = {key: prompt for key, prompt in distinct.items() if key not in given}
        bounds = self._at_most([*missing.values()])
        calls = [
            Call(
                key=key,
                request=completions.chat_request(self.model, prompt, sampling, self._longest),
                prompt_tokens=bound,
                completion_tokens=sampling.max_tokens,
            )
            for (key, prompt), bound in zip(missing.items(), bounds, strict=True)
        ]
        self._call(calls, completions.chat, completions.read_chat, completions.failed, keep)
        return [given[key].answer for key in keys]

    def score(
        self,
        prompts: Sequence[Prompt],
        candidates: Sequence[str],
        runtime: Runtime | None = None,
    ) -> npt.NDArray[np.float32]:
        """See ``Generator.score``: one call for each prompt and candidate. NaN where a call failed
        for good. Without ``tokenizer`` the prompt is sent in the plain form, with no template."""
        if self._scores is None:
            raise UnsupportedError(
                f"{self.name} tells no log-probabilities of given answers; where its /completions "
                "has echo and logprobs (vLLM), set scores to echo, or use a local model"
            )
        # The endpoint is told whether the text holds its special tokens already.
        model = {**self.identity, "templated": bool(self._tokeniser)}
        scored: dict[str, Scored] = {}
        calls: dict[str, Call] = {}
        keys: list[list[str]] = []
        for prompt, bound in zip(prompts, self._at_most(prompts), strict=True):
            text = self._text(prompt)
            space = self._tokeniser.space_after(text) if self._tokeniser else " "
            answers = [("" if text[-1:].isspace() else space) + each for each in candidates]
            keys.append([score_key(model, text, [answer]) for answer in answers])
            for key, answer in zip(keys[-1], answers, strict=True):
                calls[key] = Call(
                    key=key,
                    request=completions.echo_request(
                        self.model, text, answer, bool(self._tokeniser)
                    ),
                    prompt_tokens=bound + len(answer.encode("utf-8", "replace")),
                    completion_tokens=1,
                    answer_span=(len(text), len(text) + len(answer)),
                )
        if self.cache is not None:
            scored = self.cache.get_scores(calls)
        for one in scored.values():
            self._accounts.add(one.usage, cached=True)

        def keep(call: Call, score: float, usage: Usage) -> None:
            scored[call.key] = Scored(scores=(score,), usage=usage)
            if self.cache is not None and score == score:
                self.cache.put_scores(self.name, {call.key: scored[call.key]})

        missing = [call for key, call in calls.items() if key not in scored]
        self._call(
            missing, completions.echo, completions.read_echo, lambda reason: float("nan"), keep
        )
        values = [[scored[key].scores[0] for key in row] for row in keys]
        return np.asarray(values, dtype=np.float32).reshape(len(prompts), len(candidates))

    def used(self) -> Usage:
        return self._accounts.used()

    def paid(self) -> Usage:
        """See ``Generator.paid``. Calls that got no answer but may have been billed are not in
        it: ``budget.spending.unconfirmed`` has them."""
        return self._accounts.paid()

    def _text(self, prompt: Prompt) -> str:
        if self._tokeniser is not None:
            return self._tokeniser.text(prompt)
        return "\n\n".join(message.content for message in prompt)

    def _at_most(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens each prompt can be billed at most."""
        if self._tokeniser is not None:
            # The endpoint may add a start token, or a line to the template.
            return [len(row) + 16 for row in self._tokeniser.encode(prompts)]
        return [tokens_at_most(prompt) for prompt in prompts]

    def _call(self, calls: Sequence[Call], send: Any, read: Any, failed: Any, keep: Any) -> None:
        if not calls:
            return
        secret = self._secret()
        meter = Meter()
        before = Usage()

        with meter, progress(f"ask {self.name}", len(calls)) as advance:

            def done(call: Call, reply: Reply[Any] | None, reason: str | None) -> None:
                nonlocal before
                now = meter.usage
                usage, before = now + before.scaled(-1), now
                if reply is None:
                    logger.warning("%s: a prompt got no answer: %s", self.name, reason)
                    value = failed(reason)
                else:
                    value = reply.value
                    usage += Usage(
                        prompt_tokens=reply.prompt_tokens,
                        completion_tokens=reply.completion_tokens,
                        calls=1,
                    )
                self._accounts.add(usage, cached=False)
                keep(call, value, usage)
                advance(1)

            work: Calls[Any] = Calls(
                client=partial(
                    completions.client, self.base_url, secret, self.limits.timeout_seconds
                ),
                send=send,
                read=read,
                done=done,
                budget=self.budget,
                limits=self.limits,
                endpoint=self.name,
                key_variable=self.api_key_env,
                secret=secret,
            )
            run_to_end(partial(work.run, calls))

    def _secret(self) -> str | None:
        if self.api_key_env is None:
            return None
        secret = os.environ.get(self.api_key_env, "").strip()
        if not secret:
            raise ConfigError(
                f"{self.name} needs a key, but the environment variable {self.api_key_env} is not "
                "set; where the endpoint asks for none, set api_key_env to null"
            )
        return secret
