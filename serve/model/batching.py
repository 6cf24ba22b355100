"""Requests that wait together go through the model together, up to a budget of tokens.

Ray Serve's own ``@serve.batch`` closes a batch before the model is free: without a waiting time
every request is a batch of its own, however many are queued, and with one each pays it. Here
whatever waits when the model becomes free is the next batch, so an idle model answers at once and
a busy one fills its batches by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from llmembed.contract import Usage
from serve.errors import OverloadedError
from serve.model.energy import metered

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Batched(Generic[Result]):
    """One item's result; ``usage`` is its share of its batch's, by tokens."""

    result: Result
    queue_seconds: float
    inference_seconds: float
    usage: Usage
    batch_tokens: int


@dataclass(kw_only=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    tokens: int
    since: float
    future: asyncio.Future[Batched[Result]]


class TokenBatcher(Generic[Item, Result]):
    """Runs ``work`` on batches of at most ``budget`` tokens, first come first served, in a thread
    of its own; an item larger than the budget is a batch alone.

    ``room``: tokens that may wait; more raises ``OverloadedError``. ``observe`` hears of each
    batch's tokens. A batch that fails is tried again item by item, so that only the item at fault
    fails. Must be used from one event loop.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        budget: int,
        room: int,
        wait_seconds: float = 0.0,
        observe: Callable[[int], None] | None = None,
        name: str = "batches",
    ) -> None:
        self._work = work
        self._budget = budget
        self._room = room
        self._wait_seconds = wait_seconds
        self._observe = observe
        self._waiting: OrderedDict[asyncio.Future[Batched[Result]], _Waiting[Item, Result]]
        self._waiting = OrderedDict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._runner: asyncio.Task[None] | None = None
        self.queued_tokens = 0

    async def submit(self, item: Item, tokens: int) -> Batched[Result]:
        """The result for ``item``. Raises ``OverloadedError``, or what ``work`` raises."""
        if self.queued_tokens and self.queued_tokens + tokens > self._room:
            raise OverloadedError(
                f"the model is overloaded: {self.queued_tokens:,} tokens are waiting already"
            )
        future: asyncio.Future[Batched[Result]] = asyncio.get_running_loop().create_future()
        waiting = _Waiting[Item, Result](
            item=item, tokens=tokens, since=time.perf_counter(), future=future
        )
        self._waiting[future] = waiting
        self.queued_tokens += tokens
        # Who has left makes room at once, not when its turn comes.
        future.add_done_callback(self._leave)
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        return await future

    def close(self) -> None:
        """Let the running batch end and take no more."""
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        while self._waiting:
            if self._wait_seconds and self.queued_tokens < self._budget:
                await asyncio.sleep(self._wait_seconds)
            batch = self._next()
            if batch:
                await self._answer(batch)

    def _next(self) -> list[_Waiting[Item, Result]]:
        batch: list[_Waiting[Item, Result]] = []
        tokens = 0
        while self._waiting:
            future, waiting = next(iter(self._waiting.items()))
            if not future.done():  # else its client has gone
                if batch and tokens + waiting.tokens > self._budget:
                    break
                batch.append(waiting)
                tokens += waiting.tokens
            self._leave(future)
        return batch

    def _leave(self, future: asyncio.Future[Batched[Result]]) -> None:
        waiting = self._waiting.pop(future, None)
        if waiting is not None:
            self.queued_tokens -= waiting.tokens

    async def _answer(self, batch: Sequence[_Waiting[Item, Result]]) -> None:
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        try:
            results, usage = await loop.run_in_executor(
                self._thread, self._metered, [waiting.item for waiting in batch]
            )
            assert len(results) == len(batch), "one result for each item"
        except Exception as error:
            if len(batch) > 1:
                for waiting in batch:
                    if not waiting.future.done():
                        await self._answer([waiting])
            elif not batch[0].future.done():
                batch[0].future.set_exception(error)
            return
        seconds = time.perf_counter() - began
        tokens = sum(waiting.tokens for waiting in batch)
        if self._observe is not None:
            self._observe(tokens)
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.future.done():
                share = waiting.tokens / tokens if tokens else 1 / len(batch)
                waiting.future.set_result(
                    Batched(
                        result=result,
                        queue_seconds=began - waiting.since,
                        inference_seconds=seconds,
                        usage=usage.scaled(share),
                        batch_tokens=tokens,
                    )
                )

    def _metered(self, items: Sequence[Item]) -> tuple[Sequence[Result], Usage]:
        return metered(lambda: self._work(items))
