"""What a fusion reads, without torch: the rows of ``FUSIONS``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Align = Literal["relu", "linear"]
Reduce = Literal["last", "avg", "max", "concat"]

PRIMARY = "L"
"""The view read at several depths."""
LEXICAL = "lexical"
"""The view joined at the end of every fusion when it is there."""
EVERY = "*"
"""In ``FusionSpec``: every extra view there is, beyond those named."""


@dataclass(frozen=True, kw_only=True)
class FusionSpec:
    """One row of table 1.

    ``number`` is its number there, None for ours. ``module`` is where its class lives
    (``module:attribute``, imported when first built). ``depths`` says how the primary view's
    depths become one vector, None when it enters the co-occurrence only. ``beside`` are the extra
    views joined to that vector, ``stacked`` the extra views that enter the co-occurrence beside
    the primary view's depths (None: there is no co-occurrence).
    """

    number: int | None
    module: str
    depths: Reduce | None = None
    beside: tuple[str, ...] = ()
    stacked: tuple[str, ...] | None = None

    def missing(self, views: Iterable[str]) -> tuple[str, ...]:
        """Views that must be there and are not."""
        have = set(views)
        wanted = dict.fromkeys((PRIMARY, *self.beside, *(self.stacked or ())))
        missing = [view for view in wanted if view != EVERY and view not in have]
        if EVERY in wanted and not have - {PRIMARY, LEXICAL}:
            missing += [view for view in ("B",) if view not in missing]
        return tuple(missing)

    def extras(self, views: Iterable[str]) -> tuple[str, ...]:
        """The extra views joined beside, in a fixed order: as named, then by name."""
        return _expand(self.beside, views)

    def rows(self, views: Iterable[str]) -> tuple[str, ...]:
        """The extra views that enter the co-occurrence, in the same fixed order."""
        return _expand(self.stacked or (), views)


def _expand(named: tuple[str, ...], views: Iterable[str]) -> tuple[str, ...]:
    exact = tuple(view for view in named if view != EVERY)
    if EVERY not in named:
        return exact
    return exact + tuple(sorted(set(views) - {PRIMARY, LEXICAL, *exact}))
