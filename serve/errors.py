"""What a request may be refused with: a status, a type and one sentence, never a stack trace.

The shape ``{error, error_type}`` is Text Embeddings Inference's; below /v1/ ``error`` is OpenAI's
``{message, type}``.
"""

from __future__ import annotations

import math

AWAY_SECONDS = 5
"""When to come again where an endpoint does not say it."""


class RequestError(Exception):
    """A request that gets no answer but a reason."""

    status = 422
    error_type = "validation"
    headers: dict[str, str] = {}  # noqa: RUF012 - read only


class TooLargeError(RequestError):
    """A body, or a number of texts, above the limit."""

    status, error_type = 413, "too_large"


class MediaTypeError(RequestError):
    """A body of a type, or compressed in a way, that is not read here."""

    status, error_type = 415, "unsupported_media_type"


class TooLongError(RequestError):
    """A text of more tokens than are read, without leave to cut it."""

    status, error_type = 422, "tokenizer"


class NoFeaturesError(RequestError):
    """Features, or a task, that this classifier does not have."""

    status, error_type = 424, "backend"


class UnknownModelError(RequestError):
    """No such model or version."""

    status, error_type = 404, "model_not_found"


class ForbiddenError(RequestError):
    """The key is missing or wrong."""

    status, error_type = 401, "unauthorized"
    headers = {"WWW-Authenticate": "Bearer"}  # noqa: RUF012 - read only


class OverloadedError(RequestError):
    """More tokens wait, or more requests are being answered, than may."""

    status, error_type = 429, "overloaded"
    headers = {"Retry-After": "1"}  # noqa: RUF012 - read only


class UnavailableError(RequestError):
    """A part that answers is not there now."""

    status, error_type = 503, "unhealthy"
    headers = {"Retry-After": "1"}  # noqa: RUF012 - read only


class AwayError(RequestError):
    """The endpoint of a served language model gave no answer to ``texts`` of a request's."""

    status, error_type = 503, "backend"

    def __init__(self, words: str, *, texts: int, wait_seconds: float | None = None) -> None:
        super().__init__(words)
        self.texts = texts
        self.headers = {"Retry-After": str(max(1, math.ceil(wait_seconds or AWAY_SECONDS)))}


class LateError(RequestError):
    """No answer within the time allowed."""

    status, error_type = 504, "timeout"


class FullError(RequestError):
    """As much is stored as may be."""

    status, error_type = 507, "full"
