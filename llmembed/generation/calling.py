"""Many calls of one endpoint at once: reserve, send, retry, settle."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from llmembed.errors import BudgetError, LlmembedError, ModelError
from llmembed.generation.budget import Budget, Reservation
from llmembed.generation.refusals import Refusal, refusal_of

logger = logging.getLogger(__name__)

R = TypeVar("R")

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 600.0
"""An endpoint that asks for more is taken at this."""


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
    """What was read from one response, and the tokens the endpoint counted."""

    value: R
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, kw_only=True)
class Limits:
    """``retries``: further tries after the first. ``give_up_after``: so many calls in a row that
    got no answer after all their tries end the run."""

    concurrency: int
    timeout_seconds: float
    retries: int
    give_up_after: int


@dataclass(kw_only=True)
class Unanswered:
    """Calls of one endpoint that got no answer since the last that did, over all its runs."""

    in_a_row: int = 0


class Calls(Generic[R]):
    """All calls of one run, in one asyncio loop.

    ``send`` takes a client and a request and returns the response's JSON; ``read`` makes a
    ``Reply`` of it or raises ``UnreadableError``; ``done`` is told of each reply, or of the reason
    why there is none, as it comes. ``secret`` is struck out of whatever an endpoint says.
    """

    def __init__(
        self,
        *,
        client: Callable[[], Any],
        send: Callable[[Any, dict[str, Any]], Awaitable[Any]],
        read: Callable[[Any, Call], Reply[R]],
        done: Callable[[Call, Reply[R] | None, str | None], None],
        budget: Budget,
        limits: Limits,
        unanswered: Unanswered,
        endpoint: str,
        key_variable: str | None,
        secret: str | None,
    ) -> None:
        self._client, self._send, self._read, self._done = client, send, read, done
        self._budget, self._limits, self._unanswered = budget, limits, unanswered
        self._endpoint, self._key_variable, self._secret = endpoint, key_variable, secret
        self._stopped: LlmembedError | None = None
        self._under_way = 0
        self._resume_at = 0.0

    async def run(self, calls: Sequence[Call]) -> None:
        """Returns when all are done. Raises what stopped the run, after the calls then under way
        have ended: they are paid for."""
        self._freed = asyncio.Event()
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
                reply, reason = await self._try(client, call)
            except LlmembedError as error:
                self._stop(error)
                return
            if reply is not None:
                self._unanswered.in_a_row = 0
            elif self._stopped is not None:
                return
            else:
                self._unanswered.in_a_row += 1
            self._done(call, reply, reason)
            if self._unanswered.in_a_row >= self._limits.give_up_after:
                self._stop(
                    ModelError(
                        f"{self._endpoint} gave no answer to {self._unanswered.in_a_row} calls in "
                        f"a row, the last because {reason}; what was answered is kept"
                    )
                )

    def _stop(self, error: LlmembedError) -> None:
        self._stopped = self._stopped or error
        self._free()

    async def _try(self, client: Any, call: Call) -> tuple[Reply[R] | None, str | None]:
        reason = None
        for attempt in range(self._limits.retries + 1):
            await self._pause()
            if self._stopped is not None:
                break
            reply, refusal = await self._once(client, call)
            if refusal is None:
                return reply, None
            if refusal.error is not None:
                raise refusal.error
            reason = refusal.reason
            if attempt < self._limits.retries:
                await self._wait(attempt, refusal)
        return None, f"{reason} ({self._limits.retries + 1} tries)"

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

    async def _wait(self, attempt: int, refusal: Refusal) -> None:
        if refusal.wait_seconds is not None:
            seconds = min(refusal.wait_seconds, LONGEST_RETRY_AFTER_SECONDS)
            # The limit is the endpoint's, not this call's: all calls hold back.
            self._resume_at = max(self._resume_at, asyncio.get_running_loop().time() + seconds)
        else:
            seconds = min(FIRST_WAIT_SECONDS * 2**attempt, LONGEST_WAIT_SECONDS)
        logger.info("%s: %s; again in %.1f s", self._endpoint, refusal.reason, seconds)
        await asyncio.sleep(seconds * random.uniform(0.5, 1.0))

    async def _pause(self) -> None:
        loop = asyncio.get_running_loop()
        while self._stopped is None and loop.time() < self._resume_at:
            # Not all at the same moment.
            await asyncio.sleep(self._resume_at - loop.time() + random.uniform(0.0, 0.05))


def run_to_end(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run ``work`` in an asyncio loop of its own: in this thread, or in another where this one's
    loop is running (a notebook). Ctrl-C cancels it."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work())
        return
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []
    errors: list[BaseException] = []

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        loops.append((asyncio.get_running_loop(), task))
        await work()

    def in_thread() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=in_thread, name="llmembed-calls")
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        for loop, task in loops:
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    if errors:
        raise errors[0]
