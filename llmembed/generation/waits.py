"""How long an endpoint asks to be left alone: in its headers, or in the words of its error."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from datetime import datetime

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(
    r"(\d+(?:\.\d+)?)\s*(ms|milliseconds?|d|days?|h|hours?|m|min|minutes?|s|secs?|seconds?)(?![a-z])",
    re.IGNORECASE,
)
_AGAIN = re.compile(
    r"(?:again|retry|wait)\s+(?:in|after|for)?\s*(\d[\d.]*\s*[a-z]*(?:\s*\d[\d.]*\s*[a-z]+)*)",
    re.IGNORECASE,
)
_LIMITS = re.compile(r"(?:x-|anthropic-)?ratelimit-(?:reset.*|.*-reset)")
_EPOCH_SECONDS, _EPOCH_MS = 1e9, 1e12
"""A plain number above these is a moment and not a span."""


def told_wait(headers: Mapping[str, str], words: str) -> float | None:
    """Seconds, by the first that says any: ``Retry-After-Ms``, ``Retry-After``, the words of the
    error ("try again in 25s"), and the headers that tell when a limit starts anew."""
    for found in (retry_after(headers), wait_in_words(words), _reset(headers)):
        if found is not None:
            return found
    return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from ``Retry-After-Ms`` or ``Retry-After`` (seconds or a date)."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            date = email.utils.parsedate_tz(value)
            if date is None:
                continue
            seconds = email.utils.mktime_tz(date) - time.time()
        if seconds == seconds:
            return max(0.0, seconds)
    return None


def wait_in_words(words: str) -> float | None:
    """Seconds, from words such as "Please try again in 1m12.5s" or "retry after 20 seconds"."""
    for found in _AGAIN.finditer(words):
        if (seconds := _span(found[1])) is not None:
            return seconds
    return None


def _reset(headers: Mapping[str, str]) -> float | None:
    """The longest until a limit that is used up starts anew; where none says so, the shortest of
    all. ``x-ratelimit-reset-tokens: 6m0s``, ``anthropic-ratelimit-tokens-reset`` (a moment)."""
    spent: list[float] = []
    others: list[float] = []
    for name, value in headers.items():
        found = _LIMITS.fullmatch(name.lower())
        if found is None or (seconds := _moment(value)) is None:
            continue
        left = headers.get(name.lower().replace("-reset", "-remaining"))
        (spent if left is not None and left.strip() in ("0", "0.0") else others).append(seconds)
    return max(spent) if spent else min(others, default=None)


def _moment(value: str) -> float | None:
    """Seconds from now until ``value``: a span, seconds, seconds or milliseconds since 1970, or
    an ISO date."""
    value = value.strip()
    try:
        number = float(value)
    except ValueError:
        if (span := _span(value)) is not None:
            return span
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        return max(0.0, moment.timestamp() - time.time()) if moment.tzinfo else None
    if number != number or number < 0:
        return None
    if number >= _EPOCH_MS:
        number /= 1000.0
    return max(0.0, number - time.time()) if number >= _EPOCH_SECONDS else number


def _span(written: str) -> float | None:
    """Seconds of ``1h2m3.5s``, ``88ms``, ``20 seconds``; None where no unit is named."""
    parts = _PART.findall(written)
    if not parts:
        return None
    return sum(float(number) * _UNITS[_unit(unit.lower())] for number, unit in parts)


def _unit(word: str) -> str:
    return "ms" if word.startswith(("ms", "milli")) else word[0]
