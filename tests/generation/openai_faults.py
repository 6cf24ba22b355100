"""How the test's own OpenAI server misbehaves: what it sends in place of a good answer.

Statuses: ``429`` (with ``Retry-After``), ``limited`` (429 with none: its words say when to come
again), ``500``, ``502``, ``503``, ``400``, ``401``, ``404``, ``quota``, ``filtered`` and ``long``
(400 for this text alone), ``error200`` (an error in a body of status 200). Broken answers: ``cut``
(the connection is closed in the middle), ``hang`` (answers after ``hang_seconds``), ``nonsense``
(no JSON), ``empty`` (JSON without choices). Completions that hold no answer: ``refusal``,
``filter``, ``tool``, ``error`` (the provider failed while it wrote), ``blank``.
"""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

NO_ANSWER = ("refusal", "filter", "tool", "error", "blank")
BILLED = ("", "cut", "hang", "nonsense", "empty", *NO_ANSWER)
"""The model has done its work."""
WORDS = {
    "filtered": "The prompt triggered the content management policy.",
    "long": "This model's maximum context length is 40 tokens.",
    "refusal": "I would rather not speak of that.",
    "error": "the provider lost its way",
    "error200": "Provider returned error: overloaded",
}
CODES = {
    "quota": (429, "insufficient_quota"),
    "limited": (429, "rate_limit_exceeded"),
    "filtered": (400, "content_filter"),
    "long": (400, "context_length_exceeded"),
}


def without_an_answer(body: dict[str, Any], fault: str) -> dict[str, Any]:
    """A completion that ends otherwise than in an answer."""
    finish = {"filter": "content_filter", "tool": "tool_calls", "error": "error"}
    (choice,) = body["choices"]
    message: dict[str, Any] = {"role": "assistant", "content": "" if fault == "blank" else None}
    if fault == "refusal":
        message["refusal"] = WORDS["refusal"]
    if fault == "tool":
        called = {"name": "label", "arguments": "{}"}
        message["tool_calls"] = [{"id": "c", "type": "function", "function": called}]
    told = {**choice, "message": message, "finish_reason": finish.get(fault, "stop")}
    if fault == "error":
        told["error"] = {"code": 502, "message": WORDS["error"]}
    return {**body, "choices": [told]}


async def misbehave(
    request: web.Request, fault: str, body: dict[str, Any], *, retry_after: str, again: str
) -> web.StreamResponse:
    """``again``: in the words of ``limited``."""
    if fault in NO_ANSWER:
        return web.json_response(without_an_answer(body, fault))
    if fault == "cut":
        return await _cut(request, json.dumps(body).encode())
    if fault == "nonsense":
        return web.Response(text="<html>to be or not to be", content_type="application/json")
    if fault == "empty":
        return web.json_response({"object": "chat.completion"})
    if fault == "error200":
        return web.json_response({"error": {"code": 502, "message": WORDS[fault]}})
    # A bad habit of some endpoints: they repeat the key.
    words = WORDS.get(fault, f"refused for {fault}: {request.headers.get('Authorization')}")
    if fault == "limited":
        words = f"Rate limit reached. Please try again in {again}."
    status, code = CODES[fault] if fault in CODES else (int(fault), None)
    headers = {"Retry-After": retry_after} if fault == "429" else {}
    said = {"message": words, "code": code}
    return web.json_response({"error": said}, status=status, headers=headers)


async def _cut(request: web.Request, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.abort()
    return response
