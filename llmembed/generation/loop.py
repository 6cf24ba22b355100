"""An asyncio loop for work that is asked for from plain code, also in a notebook."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any


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
