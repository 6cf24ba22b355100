"""What every request passes: its id, the key, the size of its body, its figures, its errors."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from llmembed.errors import BudgetError, LlmembedError
from serve.errors import (
    ForbiddenError,
    LateError,
    MediaTypeError,
    OverloadedError,
    RequestError,
    TooLargeError,
    UnavailableError,
)

if TYPE_CHECKING:
    from serve.model.server import Server

logger = logging.getLogger("llmembed.serve")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

OPEN = frozenset({"/health", "/ping", "/v2/health/live", "/v2/health/ready"})
"""Answered without the key, and however many requests there are: they tell nothing but whether
there is a server."""
PAGE = ("/page/", "/swagger/")
"""Below these, and at ``SHOWN``, lies what holds nothing; what it asks for needs the key."""
SHOWN = frozenset({"/", "/favicon.ico", "/docs", "/openapi.json"})
_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)
_SAFE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


def path_of(scope: Mapping[str, Any]) -> str:
    """A request's path as the routes know it: below the prefix of the application."""
    path, root = str(scope["path"]), str(scope.get("root_path") or "").rstrip("/")
    below = path.removeprefix(root)
    return (below or "/") if path.startswith(root) and below[:1] in ("", "/") else path


def refusal(error: RequestError, path: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a request refused; below /v1/ as OpenAI's clients read it."""
    said: Any = str(error)
    if path.startswith("/v1/"):
        said = {"message": said, "type": error.error_type}
    body = json.dumps({"error": said, "error_type": error.error_type}).encode()
    return error.status, {"content-type": "application/json", **error.headers}, body


class Gate:
    """ASGI middleware around the application of one replica. At most
    ``ingress.max_ongoing_requests`` are in it at once: Ray Serve may let more come."""

    def __init__(self, app: Any, server: Server) -> None:
        self._app = app
        self._server = server
        self._in_flight = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        asked = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = asked if _ID.fullmatch(asked) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        scope["state"]["began"] = began
        status = 0
        path = path_of(scope)
        counted = path not in OPEN

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                total = f"{(time.perf_counter() - began) * 1000:.1f}"
                given = {name for name, _ in message["headers"]}
                more = {"x-total-time": total, **_SAFE}
                if not self._server.behind_serve:  # which adds the id by itself
                    more["x-request-id"] = request_id
                message["headers"] = [
                    *message["headers"],
                    *((k.encode(), v.encode()) for k, v in more.items() if k.encode() not in given),
                ]
            await send(message)

        self._in_flight += counted
        try:
            most = self._server.settings.ingress.max_ongoing_requests
            if counted and self._in_flight > most:
                raise OverloadedError(f"{most:,} requests are being answered here: come again")
            self._check_key(path, headers)
            await self._app(scope, await self._body(headers, receive), answer)
        except RequestError as error:
            await _refuse(error, path, answer)
        except BudgetError as error:
            logger.error("request %s: %s", request_id, error)
            await _refuse(UnavailableError("the budget for asking is spent"), path, answer)
        except LlmembedError as error:
            logger.error("request %s: %s", request_id, error)
            await _refuse(_Failed(request_id), path, answer)
        except asyncio.CancelledError:
            status = status or 499
            raise
        except Exception as error:
            # Where it happened, but not its message, which may hold a text.
            frames = "".join(traceback.format_tb(error.__traceback__))
            logger.error("request %s: %s\n%s", request_id, type(error).__name__, frames)
            if not status:
                await _refuse(_Failed(request_id), path, answer)
        finally:
            # The route's own path, so that paths nobody serves are no labels of metrics.
            route = getattr(scope.get("route"), "path", "other")
            self._in_flight -= counted
            self._server.metrics.requests.labels(route, str(status)).inc()
            self._server.metrics.seconds.labels(route).observe(time.perf_counter() - began)

    def _check_key(self, path: str, headers: MutableMapping[bytes, bytes]) -> None:
        if self._server.key is None or path in OPEN or path in SHOWN or path.startswith(PAGE):
            return
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        if kind.lower() != b"bearer" or not self._server.accepts(given.strip()):
            raise ForbiddenError("send the key as Authorization: Bearer KEY")

    async def _body(self, headers: MutableMapping[bytes, bytes], receive: Receive) -> Receive:
        """The whole body, within the limits of size and time, before anything reads it."""
        limits = self._server.settings.limits
        most = limits.request_bytes
        told = headers.get(b"content-length", b"0")
        if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"", b"identity"):
            raise MediaTypeError("compressed bodies are not read here: send it as it is")
        refused = TooLargeError(f"the request's body is larger than {most:,} bytes")
        if told.isdigit() and int(told) > most:
            raise refused
        pieces: list[bytes] = []
        size = 0
        async with _timeout(limits.seconds):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    pieces.clear()
                    break
                pieces.append(message.get("body", b""))
                size += len(pieces[-1])
                if size > most:
                    raise refused
                if not message.get("more_body"):
                    break
        whole: Message | None = {"type": "http.request", "body": b"".join(pieces)}

        async def replay() -> Message:
            nonlocal whole
            if whole is not None:
                first, whole = whole, None
                return first
            return await receive()

        return replay


class _Failed(RequestError):
    status, error_type = 500, "internal"

    def __init__(self, request_id: str) -> None:
        super().__init__(f"something failed here; the log names it by request {request_id}")


class _timeout:
    """``asyncio.timeout`` that raises ``LateError``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *error: Any) -> None:
        try:
            await self._timeout.__aexit__(*error)
        except TimeoutError:
            raise LateError(f"the body did not come within {self._seconds:g} s") from None


async def _refuse(error: RequestError, path: str, send: Send) -> None:
    status, headers, body = refusal(error, path)
    headers["content-length"] = str(len(body))
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
