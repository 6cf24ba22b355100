"""How many calls an endpoint takes at once, and when: learnt from its rate limits."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from llmembed.errors import NoAnswerError

FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
_LEAST_WAIT_SECONDS = 0.01


def backoff(attempt: int, first: float = FIRST_WAIT_SECONDS) -> float:
    """Seconds to wait after the ``attempt``-th (from 0) failure in a row."""
    return min(first * 2.0 ** min(attempt, 32), LONGEST_WAIT_SECONDS)


@dataclass(kw_only=True)
class Pace:
    """Of one endpoint, over all its runs. At most ``most`` calls at once; half as many after a
    refusal for the rate, and one more again after as many answers as are allowed at once.
    ``patience_seconds``: for so long limits are waited for while nothing is answered."""

    most: int
    patience_seconds: float
    _allowed: float = field(init=False)
    _resume_at: float = 0.0
    _halved_at: float = 0.0
    _quiet_since: float | None = None

    def __post_init__(self) -> None:
        self._allowed = float(self.most)

    def begin(self) -> None:
        """A new run: what was waited for earlier does not count."""
        self._quiet_since = None

    @property
    def allowed(self) -> int:
        """Calls that may be under way."""
        return int(self._allowed)

    def answered(self) -> None:
        self._quiet_since = None
        self._allowed = min(float(self.most), self._allowed + 1.0 / self._allowed)

    def limited(self, sent_at: float, told: float | None, attempt: int, words: str) -> float:
        """A call sent at ``sent_at`` (``time.monotonic``) was refused for its rate, for the
        ``attempt``-th time (from 0). Returns the seconds in which no call is sent. Raises
        ``NoAnswerError`` where these are beyond the patience; ``words`` begin its sentence."""
        now = time.monotonic()
        least = backoff(attempt) if told is None else backoff(attempt, _LEAST_WAIT_SECONDS)
        seconds = max(told or 0.0, least)
        if self._quiet_since is None:
            self._quiet_since = now
        if now + seconds - self._quiet_since > self.patience_seconds:
            raise NoAnswerError(
                f"{words}; to wait {seconds:.3g} s more is beyond patience_seconds "
                f"({self.patience_seconds:g}); what was answered is kept, and the same command "
                "goes on from there",
                wait_seconds=seconds,
            )
        if sent_at >= self._halved_at:  # those sent before are refused for the same reason
            self._allowed, self._halved_at = max(1.0, self._allowed / 2), now
        self._resume_at = max(self._resume_at, now + seconds)
        return seconds

    async def pause(self, stopped: Callable[[], bool]) -> None:
        """Until calls may be sent again."""
        while not stopped() and (seconds := self._resume_at - time.monotonic()) > 0:
            # Not all at the same moment.
            await asyncio.sleep(min(seconds, 1.0) + random.uniform(0.0, 0.05))
