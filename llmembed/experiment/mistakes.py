"""One sentence for a mistake: the key, what was wrong, what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError


def suggest(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(str(name), [str(key) for key in known], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"; known are {', '.join(map(str, known))}{hint}"


def one_of(name: str, known: Mapping[str, Any]) -> str:
    if name not in known:
        raise ValueError(f"unknown name {name!r}{suggest(name, known)}")
    return name


def sentence(
    error: ValidationError, known: Callable[[Sequence[str]], Mapping[str, Any]] | None = None
) -> str:
    first = error.errors()[0]
    kinds = ("lexical", "probe", "fused", "encoder", "decoder", "prompt", "carp")
    place = [str(part) for part in first["loc"] if not str(part).startswith("function-")]
    # pydantic puts the kind of a method and the branch of a choice into the place; neither is a key
    if len(place) > 2 and place[0] == "methods" and place[2] in kinds:
        del place[2]
    key = ".".join(
        part for part in place if part not in ("int", "str", "list[str]", "literal['auto']")
    )
    if first["type"] == "extra_forbidden":
        return f"{key}: unknown key{suggest(place[-1], known(place[:-1]) if known else {})}"
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
