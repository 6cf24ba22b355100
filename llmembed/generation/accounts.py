"""What a generator's answers took, and what was really spent on them."""

from __future__ import annotations

import threading

from llmembed.contract import Usage


class Accounts:
    """``used`` bears what answers from the cache once took, ``paid`` does not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used, self._paid = Usage(), Usage()

    def add(self, usage: Usage, *, cached: bool) -> None:
        with self._lock:
            self._used = self._used + usage
            if not cached:
                self._paid = self._paid + usage

    def used(self) -> Usage:
        """Since the last call of this."""
        with self._lock:
            used, self._used = self._used, Usage()
            return used

    def paid(self) -> Usage:
        """So far."""
        with self._lock:
            return self._paid
