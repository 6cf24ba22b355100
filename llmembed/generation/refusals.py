"""Why a call got no answer, whether to ask again, and whether it may have been billed."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmembed.errors import ConfigError, LlmembedError, ModelError, UserError

_WORDS = 300
"""Characters of an endpoint's own words that are quoted."""


class UnreadableError(Exception):
    """A response that is no completion."""


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """``error``: what stops the whole run; None where asking again may help, after
    ``wait_seconds`` where the endpoint said so."""

    reason: str
    may_be_billed: bool = False
    wait_seconds: float | None = None
    error: LlmembedError | None = None


def refusal_of(
    error: Exception, *, endpoint: str, key_variable: str | None, secret: str | None
) -> Refusal | None:
    """What to make of ``error``; None for one that is no refusal but a mistake of ours. No words
    in it hold ``secret``."""
    import openai

    if isinstance(error, UnreadableError):
        return Refusal(reason=f"it answered {error}", may_be_billed=True)
    if isinstance(error, (openai.APITimeoutError, openai.APIConnectionError)):
        # A connection that never stood carried no request.
        sent = not type(error.__cause__).__name__.startswith("Connect")
        timed_out = isinstance(error, openai.APITimeoutError)
        return Refusal(
            reason=("it took too long" if timed_out else "the connection was cut")
            if sent
            else "it can't be reached",
            may_be_billed=sent,
        )
    if isinstance(error, TimeoutError):
        return Refusal(reason="it took too long", may_be_billed=True)
    if isinstance(error, openai.APIStatusError):
        return _of_status(error, endpoint, key_variable, secret)
    return None


def _of_status(error: Any, endpoint: str, key_variable: str | None, secret: str | None) -> Refusal:
    status = int(error.status_code)
    said = _said(error, secret)
    reason = f"it answered {status}" + (f" ({said})" if said else "")
    code = getattr(error, "code", None)
    if status == 429 and code == "insufficient_quota":
        return Refusal(reason=reason, error=UserError(f"{endpoint}: the quota is used up: {said}"))
    if status in (408, 409, 429) or status >= 500:
        return Refusal(
            reason=reason,
            # A gateway that lost patience says nothing of the machine behind it.
            may_be_billed=status in (408, 502, 504),
            wait_seconds=retry_after(error.response.headers),
        )
    if status in (401, 403):
        # Not the endpoint's words: some repeat the key.
        where = f"the key in {key_variable}" if key_variable else "a call without a key"
        hint = "check that variable" if key_variable else "name its variable as api_key_env"
        words = f"{endpoint} refuses {where} (status {status}): {hint}"
        return Refusal(reason=reason, error=ConfigError(words))
    kind: type[LlmembedError] = ModelError if status == 404 else UserError
    return Refusal(
        reason=reason,
        error=kind(
            f"{endpoint} refuses the request (status {status}){': ' + said if said else ''}"
        ),
    )


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


def _said(error: Any, secret: str | None) -> str:
    body = error.body
    if isinstance(body, Mapping):
        body = body.get("message") or body.get("detail") or body.get("error") or ""
    words = " ".join(str(body or "").split())
    if secret:
        words = words.replace(secret, "…")
    return words[:_WORDS]
