"""JSON that a model wrote, with or without prose, fences and small mistakes around it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

CLOSED = re.compile(r".*</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
OPENED = re.compile(r"<think(?:ing)?>", re.IGNORECASE)


def after_thoughts(answer: str) -> tuple[int, int]:
    """Where the answer proper starts and ends: after the last closing think mark, which may lack
    its opening one (a chat template may have written that), and before one that is never closed."""
    closed = CLOSED.match(answer)
    start = closed.end() if closed else 0
    opened = OPENED.search(answer, start)
    return start, opened.start() if opened else len(answer)


def without_thoughts(answer: str) -> str:
    """``answer`` without what a reasoning model wrote up to its closing think mark."""
    return answer[slice(*after_thoughts(answer))].strip()


def key(name: Any) -> str:
    """A field's name as it is compared: letters and digits only, whatever the case."""
    return re.sub(r"[\W_]+", "", str(name)).casefold()


def values_in(answer: str, opening: str) -> Iterator[Any]:
    """Every JSON value in ``answer`` that starts with ``opening`` (``{`` or ``[``) and is not
    inside another one; Python's quotes and a trailing comma are forgiven."""
    decoder = json.JSONDecoder()
    place = answer.find(opening)
    while place >= 0:
        try:
            value, end = decoder.raw_decode(answer, place)
        except ValueError:
            value, end = _forgiven(answer, place, opening)
        if end > place:
            yield value
        place = answer.find(opening, max(end, place + 1))


def _forgiven(answer: str, place: int, opening: str) -> tuple[Any, int]:
    """A value that is nearly JSON, up to the bracket that closes it; its end, or -1."""
    closing = {"{": "}", "[": "]"}[opening]
    depth = 0
    for end in range(place, len(answer)):
        depth += (answer[end] == opening) - (answer[end] == closing)
        if depth == 0:
            written = answer[place : end + 1]
            for attempt in (json.loads, ast.literal_eval):
                try:
                    return attempt(re.sub(r",\s*([}\]])", r"\1", written)), end + 1
                except (ValueError, SyntaxError, MemoryError, RecursionError):
                    continue
            return None, -1
    return None, -1


def fields_in(answer: str, names: Sequence[str]) -> dict[str, Any]:
    """Name -> value of the fields called ``names``, from the first object that has the most of
    them; what an object cut short still shows is read, too."""
    wanted = {key(name): name for name in names}
    best: dict[str, Any] = {}
    for value in values_in(answer, "{"):
        if isinstance(value, dict):
            found = {wanted[key(k)]: v for k, v in value.items() if key(k) in wanted}
            if len(found) > len(best):
                best = found
    if best:
        return best
    for name in names:
        written = re.sub(r"[\W_]+", r"[\\W_]*", name)
        string = rf"[\"']?{written}[\"']?\s*[:=]\s*"
        listed = re.search(string + r"(\[[^\[\]]*\]?)", answer, re.IGNORECASE)
        quoted = re.search(string + r"([\"'])(.*?)(?:\1|$)", answer, re.IGNORECASE | re.MULTILINE)
        if listed:
            best[name] = listed[1]
        elif quoted:
            best[name] = quoted[2]
        elif bare := re.search(string + r"([^,}\n]+)", answer, re.IGNORECASE):
            best[name] = bare[1].strip()
    return best
