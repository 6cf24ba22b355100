"""What a worker reports, brought to the driver while the work goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

EVERY_SECONDS = 0.5


class _Letters:
    """Lives in an actor of its own."""

    def __init__(self) -> None:
        self._waiting: list[dict[str, float]] = []

    def put(self, metrics: dict[str, float]) -> None:
        self._waiting.append(metrics)

    def take(self) -> list[dict[str, float]]:
        taken, self._waiting = self._waiting, []
        return taken


@contextmanager
def listening(listen: Callable[[Mapping[str, float]], None] | None) -> Iterator[Any]:
    """Yields an actor whose ``put`` takes metrics; ``listen`` is called with them from a thread of
    this process, and for the last ones before the block ends. What ``listen`` raises is raised
    at the end. None without ``listen``."""
    if listen is None:
        yield None
        return
    import ray

    box: Any = ray.remote(num_cpus=0)(_Letters).remote()
    done = threading.Event()
    failed: list[BaseException] = []

    def deliver() -> None:
        try:
            while not done.wait(EVERY_SECONDS):
                for metrics in ray.get(box.take.remote()):
                    listen(metrics)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=deliver, daemon=True)
    thread.start()
    try:
        yield box
    finally:
        done.set()
        thread.join()
        if not failed:
            for metrics in ray.get(box.take.remote()):
                listen(metrics)
        ray.kill(box)
    if failed:
        raise failed[0]
