"""Batches by tokens: who goes together, who waits, what a failure takes along."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from serve.errors import OverloadedError
from serve.model.batching import TokenBatcher


class Slow:
    """Doubles numbers; remembers its batches, and waits for leave before each."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.leave = threading.Semaphore(0)

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.leave.acquire()
        self.batches.append(list(items))
        if 13 in items:
            raise ValueError("thirteen")
        return [2 * item for item in items]


def batcher(work: Slow, *, budget: int = 10, room: int = 100) -> TokenBatcher[int, int]:
    return TokenBatcher(work, budget=budget, room=room)


async def begun(batches: TokenBatcher[int, int], items: Sequence[int]) -> list[asyncio.Task]:
    """Tasks that wait for ``items`` of as many tokens, behind a first one that is being done."""
    tasks = [asyncio.create_task(batches.submit(1, 1))]
    await asyncio.sleep(0.05)
    tasks += [asyncio.create_task(batches.submit(item, item)) for item in items]
    await asyncio.sleep(0.05)
    return tasks


def test_what_waits_goes_together_up_to_the_budget_and_in_order() -> None:
    async def main() -> list[list[int]]:
        work = Slow()
        batches = batcher(work)
        tasks = await begun(batches, [4, 5, 3, 20, 2])
        for _ in range(9):
            work.leave.release()
        done = await asyncio.gather(*tasks)
        assert [found.result for found in done] == [2, 8, 10, 6, 40, 4]
        assert done[1].batch_tokens == 9 and done[1].queue_seconds > 0.04
        assert done[1].usage.seconds == pytest.approx(done[2].usage.seconds * 4 / 5)
        assert batches.queued_tokens == 0
        return work.batches

    # 20 is more than the budget: alone, in its turn
    assert asyncio.run(main()) == [[1], [4, 5], [3], [20], [2]]


def test_a_full_queue_refuses_and_a_gone_client_is_not_worked_for() -> None:
    async def main() -> list[list[int]]:
        work = Slow()
        batches = batcher(work, room=10)
        tasks = await begun(batches, [6, 4])
        with pytest.raises(OverloadedError, match="10 tokens"):
            await batches.submit(1, 1)
        tasks[1].cancel()
        work.leave.release(), work.leave.release()
        await asyncio.gather(tasks[0], tasks[2])
        return work.batches

    assert asyncio.run(main()) == [[1], [4]]


def test_only_the_item_at_fault_fails() -> None:
    async def main() -> list[object]:
        work = Slow()
        batches = batcher(work, budget=50)
        tasks = await begun(batches, [3, 13, 4])
        for _ in range(9):
            work.leave.release()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, three, thirteen, four = asyncio.run(main())
    assert [first.result, three.result, four.result] == [2, 6, 8]
    assert isinstance(thirteen, ValueError)


def test_an_idle_model_answers_at_once() -> None:
    async def main() -> float:
        batches: TokenBatcher[int, int] = TokenBatcher(list, budget=10, room=10)
        await batches.submit(1, 1)
        began = time.perf_counter()
        for _ in range(20):
            await batches.submit(1, 1)
        return (time.perf_counter() - began) / 20

    assert asyncio.run(main()) < 0.02


def test_who_leaves_makes_room_at_once_and_is_counted_once() -> None:
    async def main() -> list[list[int]]:
        work = Slow()
        batches = batcher(work, room=10)
        tasks = await begun(batches, [6, 4])
        assert batches.queued_tokens == 10
        tasks[1].cancel()
        await asyncio.sleep(0.01)
        assert batches.queued_tokens == 4
        tasks.append(asyncio.create_task(batches.submit(5, 5)))  # refused if 6 still counted
        await asyncio.sleep(0.01)
        assert batches.queued_tokens == 9
        work.leave.release(), work.leave.release()
        await asyncio.gather(tasks[0], tasks[2], tasks[3])
        assert batches.queued_tokens == 0
        return work.batches

    assert asyncio.run(main()) == [[1], [4, 5]]


def test_after_a_failed_batch_nobody_who_left_is_worked_for() -> None:
    async def main() -> list[list[int]]:
        work = Slow()
        batches = batcher(work, budget=50)
        tasks = await begun(batches, [3, 13, 4])
        work.leave.release()
        await asyncio.sleep(0.05)
        tasks[3].cancel()  # while its batch is tried
        for _ in range(9):
            work.leave.release()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.05)
        return work.batches

    assert asyncio.run(main()) == [[1], [3, 13, 4], [3], [13]]
