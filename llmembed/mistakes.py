"""One sentence for a mistake: the key, what was wrong, what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Sequence
from typing import Any

from pydantic import ValidationError


def suggest(name: str, known: Collection[Any]) -> str:
    """What is known, and what ``name`` may have meant."""
    if not known:
        return ""
    near = difflib.get_close_matches(str(name), [str(key) for key in known], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"; known are {', '.join(map(str, known))}{hint}"


def one_of(name: str, known: Collection[Any]) -> str:
    """``name`` where it is known; raises ``ValueError`` with what is."""
    if name not in known:
        raise ValueError(f"unknown name {name!r}{suggest(name, known)}")
    return name


def sentence(
    error: ValidationError,
    known: Callable[[Sequence[str]], Collection[Any]] | None = None,
    kinds: Collection[str] = (),
) -> str:
    """The first of pydantic's complaints. ``known``: a place, in which a method's kind follows its
    name -> the keys known there; ``kinds``: of methods, one of which each entry of ``methods``
    names."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if not str(part).startswith("function-")]
    inside = place[:-1]
    # pydantic puts the kind of a method and the branch of a choice into the place; neither is a key
    for top, at in (("methods", 2), ("method", 1)):
        if len(place) > at and place[0] == top and place[at] in kinds:
            del place[at]
    key = ".".join(
        part for part in place if part not in ("int", "str", "list[str]", "literal['auto']")
    )
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key{suggest(place[-1], known(inside) if known else ())}"
    if first["type"] == "union_tag_invalid":
        return f"{key}.kind: unknown method {first['ctx']['tag']!r}; known are {', '.join(kinds)}"
    if first["type"] == "union_tag_not_found":
        return f"{key}.kind: missing; known are {', '.join(kinds)}"
    if first["type"] == "missing":
        return f"{key}: missing"
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":  # our own words name the value already
        return f"{key}: {reason}" if key else reason
    return f"{key}: {reason[0].lower()}{reason[1:]}, got {first['input']!r}"
