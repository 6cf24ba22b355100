"""Requests and responses of the OpenAI protocol.

Responses are read as plain JSON: what an endpoint leaves out or answers besides is no error, and
what is no completion is ``UnreadableError``.
"""

from __future__ import annotations

import json
from typing import Any

from llmembed.errors import UnsupportedError
from llmembed.generation.calling import Call, Missed, Reply
from llmembed.generation.refusals import ErrorBodyError, UnreadableError, words_of
from llmembed.generation.request import Answer, Finish, Sampling
from llmembed.prompts import Prompt

_FILTERED = frozenset(
    ("content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii")
)
"""Reasons to finish, OpenAI's and Gemini's, of an answer that was taken back."""


def chat_request(model: str, prompt: Prompt, sampling: Sampling, longest: str) -> dict[str, Any]:
    request: dict[str, Any] = {
        "model": model,
        "messages": [{"role": each.role, "content": each.content} for each in prompt],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        longest: sampling.max_tokens,
        "seed": sampling.seed,
    }
    if sampling.stop:
        request["stop"] = list(sampling.stop)
    if sampling.logprobs:
        request["logprobs"] = True
    return request


def echo_request(model: str, text: str, answer: str, templated: bool) -> dict[str, Any]:
    """The log-probabilities of ``answer`` after ``text``, with as little generation as can be."""
    request: dict[str, Any] = {
        "model": model,
        "prompt": text + answer,
        "max_tokens": 1,
        "temperature": 0.0,
        "echo": True,
        "logprobs": 1,
    }
    if templated:
        # vLLM's setting: the template has written the special tokens already.
        request["extra_body"] = {"add_special_tokens": False}
    return request


async def chat(client: Any, request: dict[str, Any]) -> Any:
    return _json(await client.chat.completions.with_raw_response.create(**request))


async def echo(client: Any, request: dict[str, Any]) -> Any:
    return _json(await client.completions.with_raw_response.create(**request))


def _json(response: Any) -> Any:
    try:
        return json.loads(response.http_response.content)
    except ValueError:
        raise UnreadableError("something that is no JSON") from None


def read_chat(body: Any, call: Call) -> Reply[Answer]:
    """What is no answer but a refusal has no text: ``finish`` and ``reason`` say so. Raises
    ``UnreadableError`` also where the provider failed while it wrote."""
    choice = _choice(body)
    finish = str(choice.get("finish_reason") or "").lower()
    if finish == "error" or choice.get("error"):
        raise ErrorBodyError(choice.get("error"))
    message = choice.get("message")
    if message is None and finish in _FILTERED:
        message = {}
    if not isinstance(message, dict):
        raise UnreadableError("JSON that is no chat completion")
    prompt_tokens, completion_tokens = _counted(body, call)
    try:
        content = (choice.get("logprobs") or {}).get("content")
        logprobs = None
        if content is not None:
            logprobs = tuple((_clean(each["token"]), float(each["logprob"])) for each in content)
        text = _clean(message.get("content") or "")
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UnreadableError("JSON that is no chat completion") from None
    refused = _refused(finish, message, text)
    ended: Finish = "length" if finish in ("length", "max_tokens") else "stop"
    answer = Answer(
        text=text if refused is None else "",
        finish=ended if refused is None else "refused",
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        logprobs=logprobs if refused is None else None,
        reason=refused,
    )
    return Reply(
        value=answer,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        refused=refused,
    )


def _refused(finish: str, message: dict[str, Any], text: str) -> str | None:
    """Why the message is no answer, None where it is one."""
    if finish in _FILTERED:
        return f"its filter stopped the answer (finish_reason {finish})"
    if text.strip():
        return None
    if message.get("refusal"):
        return f"the model refused: {words_of(message['refusal'])}"
    if message.get("tool_calls") or message.get("function_call"):
        return "the model called a tool in place of an answer"
    return None


def read_echo(body: Any, call: Call) -> Reply[float]:
    """Sum over the tokens that end within the answer; a token across its start belongs to it."""
    try:
        told = _choice(body)["logprobs"]
        offsets, values, tokens = (
            told["text_offset"],
            told["token_logprobs"],
            told["tokens"],
        )
        start, end = call.answer_span
        score = sum(
            float(value)
            for offset, value, token in zip(offsets, values, tokens, strict=True)
            if offset < end and offset + len(token) > start and value is not None
        )
    except (KeyError, TypeError, ValueError):
        raise UnreadableError("a completion without the log-probabilities of its prompt") from None
    prompt_tokens, completion_tokens = _counted(body, call)
    return Reply(value=score, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)


def missed(why: Missed) -> Answer:
    """In place of an answer that did not come."""
    finish: Finish = "refused" if why.refused else "failed"
    return Answer(text="", finish=finish, prompt_tokens=0, completion_tokens=0, reason=why.reason)


def _choice(body: Any) -> dict[str, Any]:
    if isinstance(body, dict) and body.get("error") and not body.get("choices"):
        raise ErrorBodyError(body["error"])
    try:
        choice = body["choices"][0]
    except (KeyError, IndexError, TypeError):
        raise UnreadableError("JSON that is no completion") from None
    if not isinstance(choice, dict):
        raise UnreadableError("JSON that is no completion")
    return choice


def _counted(body: Any, call: Call) -> tuple[int, int]:
    """As the endpoint says; the whole reservation where it says nothing."""
    usage = body.get("usage") or {}
    try:
        return int(usage["prompt_tokens"]), int(usage.get("completion_tokens") or 0)
    except (KeyError, TypeError, ValueError):
        return call.prompt_tokens, call.completion_tokens


def _clean(text: str) -> str:
    """Without halves of characters, which no file can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def client(base_url: str, secret: str | None, timeout_seconds: float) -> Any:
    """An ``AsyncOpenAI``. Raises ``UnsupportedError`` where the package is not installed."""
    try:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient
    except ImportError:
        raise UnsupportedError(
            "endpoints are asked through the package openai: run `pip install llmembed[prompt]`"
        ) from None
    # Retries are the caller's, so that each try reserves its tokens.
    return AsyncOpenAI(
        base_url=base_url,
        api_key=secret or "none",
        max_retries=0,
        timeout=timeout_seconds,
        # Texts go to the address that was named, not to where it would send them on.
        http_client=DefaultAsyncHttpxClient(follow_redirects=False, timeout=timeout_seconds),
    )
