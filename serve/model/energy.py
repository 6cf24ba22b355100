"""What pieces of work that run at once in one process took, each its share.

A ``Meter`` measures the whole process, so two of them at once would count the same joules twice.
Here one window is open while anything runs. It is read whenever a piece begins or ends, and what
was taken since the last reading is divided evenly among the pieces that ran meanwhile: the shares
of all pieces add up to the whole. What the process does while no piece runs is charged to nobody.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TypeVar

from llmembed.contract import Usage
from llmembed.metering import DeviceMeter, Meter

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds of one request's parts, and what the models took for it."""

    tokenise_seconds: float = 0.0
    queue_seconds: float = 0.0
    inference_seconds: float = 0.0
    usage: Usage = field(default_factory=Usage)

    def __add__(self, other: Timing) -> Timing:
        return Timing(
            tokenise_seconds=self.tokenise_seconds + other.tokenise_seconds,
            queue_seconds=self.queue_seconds + other.queue_seconds,
            inference_seconds=self.inference_seconds + other.inference_seconds,
            usage=self.usage + other.usage,
        )


class Piece:
    """A piece of work; ``usage`` has its own wall-clock seconds and its share of the joules and
    core-seconds."""

    def __init__(self) -> None:
        self.usage = Usage()


class SharedMeter:
    """``with shared.piece() as piece: …`` then ``piece.usage``, from any thread."""

    def __init__(self, meters: Sequence[DeviceMeter] | None = None) -> None:
        self._meters = meters
        self._lock = threading.Lock()
        self._running: list[Piece] = []
        self._window: Meter | None = None

    @contextmanager
    def piece(self) -> Iterator[Piece]:
        piece = Piece()
        with self._lock:
            if self._window is None:
                self._window = Meter(meters=self._meters).__enter__()
            else:
                self._share(self._window)
            self._running.append(piece)
        began = time.perf_counter()
        try:
            yield piece
        finally:
            seconds = time.perf_counter() - began
            with self._lock:
                assert self._window is not None
                self._share(self._window)
                self._running.remove(piece)
                piece.usage += Usage(seconds=seconds)
                if not self._running:
                    self._window.__exit__()
                    self._window = None

    def _share(self, window: Meter) -> None:
        """Charge those running for what was taken since the last reading."""
        taken = window.lap()
        each = replace(taken, seconds=0.0).scaled(1 / len(self._running))
        for piece in self._running:
            piece.usage += each


@cache
def shared_meter() -> SharedMeter:
    """The one of this process."""
    return SharedMeter()


def metered(work: Callable[[], Result]) -> tuple[Result, Usage]:
    """What ``work`` gives, and its share of what this process took meanwhile."""
    with shared_meter().piece() as piece:
        found = work()
    return found, piece.usage
