"""A limit on what an endpoint may cost, kept before money is spent and not after."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from llmembed.contract import Usage
from llmembed.errors import BudgetError, ConfigError
from llmembed.metering import Prices


@dataclass(frozen=True, kw_only=True)
class Reservation:
    """Tokens set aside for one call: its prompt and the longest answer it may get."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, kw_only=True)
class Spending:
    """``settled``: as endpoints counted it. ``unconfirmed``: calls that timed out or were cut and
    may have been billed, taken at their whole reservation. ``reserved``: of calls under way."""

    settled: Usage
    unconfirmed: Usage
    reserved: Usage

    @property
    def total(self) -> Usage:
        return self.settled + self.unconfirmed + self.reserved


class Budget:
    """At most ``usd`` US dollars and ``tokens`` tokens (prompt and answer together); None is no
    limit. Shared by threads and generators.

    Each call reserves before it is sent and ends by one of ``settle`` (the endpoint said what it
    counted), ``release`` (surely not billed) or ``keep`` (it may have been billed).
    """

    def __init__(
        self, *, usd: float | None = None, tokens: int | None = None, prices: Prices | None = None
    ) -> None:
        if (usd is not None and usd < 0) or (tokens is not None and tokens < 0):
            raise ConfigError("a budget must not be negative")
        self.usd = usd
        self.tokens = tokens
        self.prices = prices or Prices()
        self._lock = threading.Lock()
        self._settled, self._unconfirmed, self._reserved = Usage(), Usage(), Usage()

    def __repr__(self) -> str:
        return f"Budget(usd={self.usd}, tokens={self.tokens})"

    @property
    def spending(self) -> Spending:
        with self._lock:
            return Spending(
                settled=self._settled, unconfirmed=self._unconfirmed, reserved=self._reserved
            )

    @property
    def spent_usd(self) -> float:
        """Settled and unconfirmed calls by this budget's prices."""
        spending = self.spending
        return self.prices.cost(spending.settled + spending.unconfirmed)

    def reserve(self, prompt_tokens: int, completion_tokens: int) -> Reservation:
        """Set tokens aside. Raises ``BudgetError`` where the call could exceed the budget."""
        asked = Reservation(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        with self._lock:
            so_far = self._settled + self._unconfirmed + self._reserved
            after = so_far + _as_usage(asked)
            tokens = after.prompt_tokens + after.completion_tokens
            if self.tokens is not None and tokens > self.tokens:
                used = so_far.prompt_tokens + so_far.completion_tokens
                raise BudgetError(
                    f"the next call may take {tokens - used} tokens, but {used} of the budget of "
                    f"{self.tokens} are spent or reserved; what was answered is kept"
                )
            cost = self.prices.cost(after)
            # Sums of floats: the last call of an exact budget must still fit.
            if self.usd is not None and cost > self.usd * (1 + 1e-9):
                used_usd = self.prices.cost(so_far)
                raise BudgetError(
                    f"the next call may cost {cost - used_usd:.6f} USD, but {used_usd:.6f} of the "
                    f"budget of {self.usd:g} USD are spent or reserved; what was answered is kept"
                )
            self._reserved = self._reserved + _as_usage(asked)
        return asked

    def settle(
        self, reservation: Reservation, *, prompt_tokens: int, completion_tokens: int
    ) -> None:
        """The endpoint counted so many tokens."""
        took = Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, calls=1)
        with self._lock:
            self._give_back(reservation)
            self._settled = self._settled + took

    def release(self, reservation: Reservation) -> None:
        """The call was refused before any work was done."""
        with self._lock:
            self._give_back(reservation)

    def keep(self, reservation: Reservation) -> None:
        """The call got no answer but may have been billed: its reservation counts as spent."""
        with self._lock:
            self._give_back(reservation)
            self._unconfirmed = self._unconfirmed + _as_usage(reservation, calls=1)

    def _give_back(self, reservation: Reservation) -> None:
        held = self._reserved
        self._reserved = Usage(
            prompt_tokens=held.prompt_tokens - reservation.prompt_tokens,
            completion_tokens=held.completion_tokens - reservation.completion_tokens,
        )


def _as_usage(reservation: Reservation, calls: int = 0) -> Usage:
    return Usage(
        prompt_tokens=reservation.prompt_tokens,
        completion_tokens=reservation.completion_tokens,
        calls=calls,
    )
