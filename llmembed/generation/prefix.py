"""What prompts begin with alike is computed once, and its keys and values used by all of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

LEAST_TOKENS = 8
"""A shorter common beginning is not worth the copying."""


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """``ids``: the tokens; ``past``: their keys and values, for one row."""

    ids: tuple[int, ...]
    past: Any

    def __len__(self) -> int:
        return len(self.ids)

    def for_rows(self, count: int) -> Any:
        return repeated(self.past, count)


class Prefixes:
    """Keeps the last common beginning: chunk after chunk of a run mostly has the same.

    ``compute``: token ids -> their keys and values. ``reused``: positions that were not computed
    because of it.
    """

    def __init__(self, compute: Callable[[Sequence[int]], Any], *, enabled: bool) -> None:
        self._compute = compute
        self._enabled = enabled
        self._kept: Prefix | None = None
        self.reused = 0

    def of(self, rows: Sequence[Sequence[int]]) -> Prefix | None:
        """The beginning of all ``rows``; None where it is too short. At least one token of each
        row is left over."""
        if not self._enabled or not rows:
            return None
        common = common_beginning(rows)
        kept = self._kept
        if kept is not None and (len(kept) > common or tuple(rows[0][: len(kept)]) != kept.ids):
            kept = None
        # A shorter one at hand is better than a longer one to compute, unless it is much shorter.
        if len(rows) > 1 and common >= LEAST_TOKENS and (kept is None or len(kept) < common / 2):
            past = self._compute(rows[0][:common])
            if not is_plain(past):
                self._enabled = False
                return None
            kept = self._kept = Prefix(ids=tuple(rows[0][:common]), past=past)
            self.reused -= common
        if kept is None:
            return None
        self.reused += len(kept) * len(rows)
        return kept


def common_beginning(rows: Sequence[Sequence[int]]) -> int:
    """Tokens that all rows begin with, less one of the shortest row."""
    # What the first and the last in order share, all share.
    first, last = min(map(tuple, rows)), max(map(tuple, rows))
    unlike = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return max(0, min(next(unlike, len(first)), min(map(len, rows)) - 1))


def is_plain(past: Any) -> bool:
    """Whether every layer keeps all keys and values in a row. Those with a sliding window count
    their distance in places, which padding after the prefix would spoil."""
    from transformers.cache_utils import DynamicLayer

    return all(type(layer) is DynamicLayer for layer in getattr(past, "layers", [None]))


def is_repeatable(past: Any) -> bool:
    from transformers.cache_utils import DynamicLayer

    return all(isinstance(layer, DynamicLayer) for layer in getattr(past, "layers", [None]))


def repeated(past: Any, times: int) -> Any:
    """Each row of ``past`` ``times`` times in a row; ``past`` itself stays as it is."""
    twin = copy.copy(past)
    # Layers replace their tensors and never write into them, so a shallow copy is enough.
    twin.layers = [copy.copy(layer) for layer in past.layers]
    twin.batch_repeat_interleave(times)
    return twin
