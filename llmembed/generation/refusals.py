"""Why a call got no answer, whether to ask again, and whether it may have been billed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmembed.errors import ConfigError, LlmembedError, ModelError, UserError
from llmembed.generation.waits import told_wait

_TAGS = re.compile(r"<(?:style|script)\b.*?</(?:style|script)>|<[^>]*>", re.DOTALL | re.IGNORECASE)
QUOTED = 300
"""Characters of an endpoint's own words that are quoted."""
_TEXT_CODES = frozenset(
    (
        "content_filter",
        "content_policy_violation",
        "context_length_exceeded",
        "responsibleaipolicyviolation",
        "string_above_max_length",
    )
)
_TEXT_WORDS = re.compile(
    r"content (?:management |usage )?polic|content[_ ]filter|flagged|moderation"
    r"|context (?:length|window)|(?:prompt|input|message)s? (?:is|are) too long|too many tokens",
    re.IGNORECASE,
)
"""What is said of one text and not of the request: a filter, or a prompt that is too long."""


class UnreadableError(Exception):
    """A response that is no completion."""


class ErrorBodyError(UnreadableError):
    """An error in place of a completion, in a response that says all is well."""

    def __init__(self, body: Any) -> None:
        self.code = str(body.get("code") or "") if isinstance(body, Mapping) else ""
        self.words = words_of(body)
        super().__init__(f"an error instead of a completion ({self.words or 'without words'})")


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """``error``: what stops the whole run; None where asking again may help, after
    ``wait_seconds`` where the endpoint said so. ``limited``: refused for its rate, so that it is a
    matter of time alone. ``of_text``: of this text; asking again does not help, and an ``error``
    beside it stops the run only while nothing was answered yet."""

    reason: str
    may_be_billed: bool = False
    wait_seconds: float | None = None
    limited: bool = False
    of_text: bool = False
    error: LlmembedError | None = None


def refusal_of(
    error: Exception, *, endpoint: str, key_variable: str | None, secret: str | None
) -> Refusal | None:
    """What to make of ``error``; None for one that is no refusal but a mistake of ours. No words
    in it hold ``secret``."""
    import openai

    if isinstance(error, UnreadableError):
        reason = f"it answered {struck(str(error), secret)}"
        if isinstance(error, ErrorBodyError):
            if _of_text(error.code, error.words):
                return Refusal(reason=reason, may_be_billed=True, of_text=True)
            wait = told_wait({}, error.words)
            limited = error.code in ("429", "rate_limit_exceeded")
            return Refusal(reason=reason, may_be_billed=True, wait_seconds=wait, limited=limited)
        return Refusal(reason=reason, may_be_billed=True)
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
    said = struck(words_of(error.body), secret)
    reason = f"it answered {status}" + (f" ({said})" if said else "")
    code = str(getattr(error, "code", None) or "")
    if status == 429 and code == "insufficient_quota":
        return Refusal(reason=reason, error=UserError(f"{endpoint}: the quota is used up: {said}"))
    if status in (408, 409, 429) or status >= 500:
        wait = told_wait(error.response.headers, said)
        return Refusal(
            reason=reason,
            # A gateway that lost patience says nothing of the machine behind it.
            may_be_billed=status in (408, 502, 504),
            wait_seconds=wait,
            limited=status == 429 or (status == 503 and wait is not None),
        )
    of_text = status in (400, 403, 413, 422) and _of_text(code, said)
    if of_text:
        return Refusal(reason=reason, of_text=True)
    if status in (401, 403):
        # Not the endpoint's words: some repeat the key.
        where = f"the key in {key_variable}" if key_variable else "a call without a key"
        hint = "check that variable" if key_variable else "name its variable as api_key_env"
        words = f"{endpoint} refuses {where} (status {status}): {hint}"
        return Refusal(reason=reason, error=ConfigError(words))
    kind: type[LlmembedError] = ModelError if status == 404 else UserError
    return Refusal(
        reason=reason,
        of_text=status in (400, 413, 422),
        error=kind(
            f"{endpoint} refuses the request (status {status}){': ' + said if said else ''}"
        ),
    )


def _of_text(code: str, words: str) -> bool:
    return code.lower() in _TEXT_CODES or _TEXT_WORDS.search(words) is not None


def words_of(body: Any) -> str:
    """What the body of an error says, on one line, without the tags of a page."""
    while isinstance(body, Mapping):
        body = body.get("message") or body.get("detail") or body.get("error") or ""
    words = str(body or "")
    return " ".join((_TAGS.sub(" ", words) if words.lstrip().startswith("<") else words).split())


def struck(words: str, secret: str | None, most: int = QUOTED) -> str:
    """At most ``most`` characters of ``words``, without ``secret``."""
    return (words.replace(secret, "…") if secret else words)[:most]
