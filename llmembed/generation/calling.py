"""Many calls of one endpoint at once: reserve, send, wait or retry, settle."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from llmembed.errors import BudgetError, LlmembedError, NoAnswerError, UserError
from llmembed.generation.budget import Budget, Reservation
from llmembed.generation.pacing import Pace, backoff
from llmembed.generation.refusals import Refusal, refusal_of

logger = logging.getLogger(__name__)

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request. ``prompt_tokens`` and ``completion_tokens``: the most it can be billed.
    ``answer_span``: where in an echoed prompt the answer to be scored stands."""

    key: str
    request: dict[str, Any]
    prompt_tokens: int
    completion_tokens: int
    answer_span: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True)
class Reply(Generic[R]):
    """What was read from one response, and the tokens the endpoint counted. ``refused``: the value
    says that there is no answer to this prompt."""

    value: R
    prompt_tokens: int
    completion_tokens: int
    refused: str | None = None


@dataclass(frozen=True, kw_only=True)
class Missed:
    """Why a call has no reply. ``refused``: the endpoint would not take this prompt, and asking
    again does not help."""

    reason: str
    refused: bool = False
    error: LlmembedError | None = None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """``retries``: further tries after the first, those refused for the rate not counted.
    ``give_up_after``: so many calls in a row that got no answer after all their tries end the run,
    and so many refusals before anything was answered."""

    concurrency: int
    timeout_seconds: float
    retries: int
    give_up_after: int


@dataclass(kw_only=True)
class Unanswered:
    """Calls of one endpoint over all its runs: ``in_a_row`` got no answer since the last that did;
    ``refused`` were refused before anything was ``answered``, now or in an earlier run."""

    in_a_row: int = 0
    refused: int = 0
    answered: bool = False


class Calls(Generic[R]):
    """All calls of one run, in one asyncio loop.

    ``send`` takes a client and a request and returns the response's JSON; ``read`` makes a
    ``Reply`` of it or raises ``UnreadableError``; ``done`` is told of each reply, or of why there
    is none, as it comes. ``secret`` is struck out of whatever an endpoint says.
    """

    def __init__(
        self,
        *,
        client: Callable[[], Any],
        send: Callable[[Any, dict[str, Any]], Awaitable[Any]],
        read: Callable[[Any, Call], Reply[R]],
        done: Callable[[Call, Reply[R] | None, Missed | None], None],
        budget: Budget,
        limits: Limits,
        pace: Pace,
        unanswered: Unanswered,
        endpoint: str,
        key_variable: str | None,
        secret: str | None,
    ) -> None:
        self._client, self._send, self._read, self._done = client, send, read, done
        self._budget, self._limits, self._pace = budget, limits, pace
        self._unanswered = unanswered
        self._endpoint, self._key_variable, self._secret = endpoint, key_variable, secret
        self._stopped: LlmembedError | None = None
        self._under_way = 0
        self._said_limited = False

    async def run(self, calls: Sequence[Call]) -> None:
        """Returns when all are done. Raises what stopped the run, after the calls then under way
        have ended: they are paid for."""
        self._freed = asyncio.Event()
        self._pace.begin()
        waiting = iter(calls)
        async with self._client() as client:
            workers = [
                asyncio.create_task(self._work(client, waiting))
                for _ in range(min(self._limits.concurrency, len(calls)))
            ]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        if self._stopped is not None:
            raise self._stopped

    async def _work(self, client: Any, waiting: Iterator[Call]) -> None:
        for call in waiting:
            if self._stopped is not None:
                return
            try:
                reply, missed = await self._try(client, call)
            except LlmembedError as error:
                self._stop(error)
                return
            if reply is None and self._stopped is not None:
                return
            self._done(call, reply, missed)
            self._count(reply, missed)

    def _count(self, reply: Reply[R] | None, missed: Missed | None) -> None:
        """Stop where the endpoint answers nobody."""
        counts, most = self._unanswered, self._limits.give_up_after
        refused = reply.refused if reply is not None else None
        if missed is not None and missed.refused:
            refused = missed.reason
        if reply is not None and refused is None:
            counts.answered = True
        if missed is None or (missed.refused and missed.error is None):
            counts.in_a_row = 0
        else:
            counts.in_a_row += 1
        if refused is not None and not counts.answered:
            counts.refused += 1
            if counts.refused >= most:
                self._stop(
                    UserError(
                        f"{self._endpoint} refuses the first {counts.refused} prompts, the last "
                        f"because {refused}"
                    )
                )
        if missed is not None and counts.in_a_row >= most:
            self._stop(
                missed.error
                or NoAnswerError(
                    f"{self._endpoint} gave no answer to {counts.in_a_row} calls in a row, the "
                    f"last because {missed.reason}; what was answered is kept"
                )
            )

    def _stop(self, error: LlmembedError) -> None:
        self._stopped = self._stopped or error
        self._free()

    async def _try(self, client: Any, call: Call) -> tuple[Reply[R] | None, Missed | None]:
        tries, limited = 0, 0
        while True:
            await self._turn()
            if self._stopped is not None:
                return None, None
            sent_at = time.monotonic()
            reply, refusal = await self._once(client, call)
            if refusal is None:
                self._pace.answered()
                return reply, None
            if refusal.limited:
                self._limited(sent_at, refusal, limited)
                limited += 1
                continue
            if refusal.of_text and (refusal.error is None or self._unanswered.answered):
                return None, Missed(reason=refusal.reason, refused=True, error=refusal.error)
            if refusal.error is not None:
                raise refusal.error
            tries += 1
            if tries > self._limits.retries:
                return None, Missed(reason=f"{refusal.reason} ({tries} tries)")
            seconds = backoff(tries - 1) if refusal.wait_seconds is None else refusal.wait_seconds
            seconds = min(seconds, self._pace.patience_seconds)
            logger.info("%s: %s; again in %.1f s", self._endpoint, refusal.reason, seconds)
            if refusal.wait_seconds is None:
                seconds *= random.uniform(0.5, 1.0)
            await asyncio.sleep(seconds)

    def _limited(self, sent_at: float, refusal: Refusal, attempt: int) -> None:
        """The limit is the endpoint's, not this call's: all calls hold back."""
        words = f"{self._endpoint} lets no call through its limits: {refusal.reason}"
        seconds = self._pace.limited(sent_at, refusal.wait_seconds, attempt, words)
        log = logger.info if self._said_limited else logger.warning
        self._said_limited = True
        log(
            "%s limits its calls: %s; they wait %.3g s, and at most %d are sent at once",
            self._endpoint,
            refusal.reason,
            seconds,
            self._pace.allowed,
        )

    async def _turn(self) -> None:
        """Until the endpoint's limits allow for one more call."""
        while self._stopped is None:
            await self._pace.pause(lambda: self._stopped is not None)
            if self._under_way < self._pace.allowed:
                return
            await self._freed.wait()

    async def _once(self, client: Any, call: Call) -> tuple[Reply[R] | None, Refusal | None]:
        reservation = await self._reserve(call)
        ended = False
        try:
            try:
                async with asyncio.timeout(self._limits.timeout_seconds):
                    body = await self._send(client, call.request)
                reply = self._read(body, call)
            except Exception as error:
                refusal = refusal_of(
                    error,
                    endpoint=self._endpoint,
                    key_variable=self._key_variable,
                    secret=self._secret,
                )
                if refusal is None:
                    raise
                (self._budget.keep if refusal.may_be_billed else self._budget.release)(reservation)
                ended = True
                return None, refusal
            self._budget.settle(
                reservation,
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
            )
            ended = True
            return reply, None
        finally:
            if not ended:  # cancelled: the endpoint may go on and bill it
                self._budget.keep(reservation)
            self._under_way -= 1
            self._free()

    async def _reserve(self, call: Call) -> Reservation:
        """Calls under way may take less than they reserved: wait for them before giving up."""
        while True:
            try:
                reservation = self._budget.reserve(call.prompt_tokens, call.completion_tokens)
            except BudgetError:
                if not self._under_way or self._stopped is not None:
                    raise
            else:
                self._under_way += 1
                return reservation
            await self._freed.wait()

    def _free(self) -> None:
        self._freed.set()
        self._freed = asyncio.Event()
