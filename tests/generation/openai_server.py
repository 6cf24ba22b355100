"""A real HTTP server that speaks the OpenAI protocol and answers by a script.

It counts white-space words as tokens, keeps what it was asked and what it would bill, and can be
told to misbehave. In a test::

    with OpenAIServer(answer=lambda messages: "earn") as server:
        EndpointGenerator(model="scripted", base_url=server.url, api_key_env=None)
        server.fail("429", "500")       # the next two calls

or as a program: ``python openai_server.py --port 0 --answer echo`` prints its address; then
``POST /control {"faults": ["cut"], "delay_seconds": 0.1}`` and ``GET /control`` for the totals.

``openai_faults.py`` names the faults. ``fault_of`` (messages -> fault) is asked where none waits.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web
from openai_faults import BILLED, misbehave

Messages = list[dict[str, str]]


def echo(messages: Messages) -> str:
    """The last message's last line."""
    return messages[-1]["content"].strip().splitlines()[-1]


def label(messages: Messages) -> str:
    """The label of a text that names one between square brackets."""
    found = re.findall(r"\[(\w+)\]", messages[-1]["content"])
    return found[-1] if found else "earn"


ANSWERS: dict[str, Callable[[Messages], str]] = {"echo": echo, "label": label}


def words(text: str) -> list[str]:
    """Tokens: words with the white space before them."""
    return re.findall(r"\s*\S+", text)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One call as the server saw it; ``status`` 0 where the connection was cut."""

    messages: Any
    request: dict[str, Any]
    authorization: str | None
    prompt_tokens: int
    completion_tokens: int
    fault: str
    at: float

    @property
    def billed(self) -> bool:
        return self.fault in BILLED


class OpenAIServer:
    """``answer``: messages -> text. ``api_key``: refuse calls without it."""

    def __init__(
        self,
        answer: Callable[[Messages], str] = echo,
        *,
        port: int = 0,
        delay_seconds: float = 0.0,
        hang_seconds: float = 5.0,
        retry_after: str = "0.1",
        again: str = "100ms",
        fault_of: Callable[[Messages], str] = lambda messages: "",
        api_key: str | None = None,
        usage: bool = True,
    ) -> None:
        self.answer = answer
        self.port = port
        self.delay_seconds = delay_seconds
        self.hang_seconds = hang_seconds
        self.retry_after = retry_after
        self.again = again
        self.fault_of = fault_of
        self.api_key = api_key
        self.usage = usage
        self.faults: deque[str] = deque()
        self.calls: list[Asked] = []
        self.at_once = 0
        self.most_at_once = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def fail(self, *faults: str) -> None:
        """What the next calls meet, one each; an empty word is a call that goes well."""
        self.faults.extend(faults)

    @property
    def billed(self) -> list[Asked]:
        return [call for call in self.calls if call.billed]

    @property
    def prompt_tokens(self) -> int:
        return sum(call.prompt_tokens for call in self.billed)

    @property
    def completion_tokens(self) -> int:
        return sum(call.completion_tokens for call in self.billed)

    def totals(self) -> dict[str, int]:
        return {
            "calls": len(self.calls),
            "billed": len(self.billed),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "most_at_once": self.most_at_once,
        }

    def __enter__(self) -> OpenAIServer:
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._ready.wait(20), "the test server did not start"
        return self

    def __exit__(self, *error: object) -> None:
        assert self._loop is not None and self._thread is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)

    def _serve(self) -> None:
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        runner = self._loop.run_until_complete(self.start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_get("/control", self._tell)
        app.router.add_post("/control", self._control)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        return runner

    async def _tell(self, request: web.Request) -> web.Response:
        calls = [asdict(call) for call in self.calls] if request.query.get("calls") else []
        return web.json_response({**self.totals(), "asked": calls})

    async def _control(self, request: web.Request) -> web.Response:
        told = await request.json()
        self.fail(*told.pop("faults", []))
        for name, value in told.items():
            setattr(self, name, value)
        return web.json_response(self.totals())

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        prompt = sum(len(words(message["content"])) for message in asked["messages"])
        text = self.answer(asked["messages"])
        for stop in asked.get("stop") or []:
            text = text.split(stop)[0]
        longest = asked.get("max_tokens") or asked.get("max_completion_tokens") or 10**6
        tokens = words(text)
        finish = "length" if len(tokens) > longest else "stop"
        tokens = tokens[:longest]
        told: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(tokens)},
            "finish_reason": finish,
        }
        if asked.get("logprobs"):
            told["logprobs"] = {
                "content": [{"token": t, "logprob": logprob(t), "top_logprobs": []} for t in tokens]
            }
        body = {"object": "chat.completion", "model": asked["model"], "choices": [told]}
        return await self._reply(request, asked, asked["messages"], prompt, len(tokens), body)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        """With ``echo`` and ``logprobs``: those of the prompt's words, and one more word."""
        asked = await request.json()
        tokens = words(asked["prompt"])
        offsets = [sum(map(len, tokens[:i])) for i in range(len(tokens))]
        told = {
            "index": 0,
            "text": asked["prompt"] + " more",
            "finish_reason": "length",
            "logprobs": {
                "tokens": [*tokens, " more"],
                "text_offset": [*offsets, len(asked["prompt"])],
                "token_logprobs": [None, *(logprob(t) for t in tokens[1:]), -1.0],
            },
        }
        body = {"object": "text_completion", "model": asked["model"], "choices": [told]}
        return await self._reply(request, asked, asked["prompt"], len(tokens), 1, body)

    async def _reply(
        self,
        request: web.Request,
        asked: dict[str, Any],
        messages: Any,
        prompt_tokens: int,
        completion_tokens: int,
        body: dict[str, Any],
    ) -> web.StreamResponse:
        authorization = request.headers.get("Authorization")
        fault = self.faults.popleft() if self.faults else self.fault_of(messages)
        if self.api_key is not None and authorization != f"Bearer {self.api_key}":
            fault = "401"
        self.calls.append(
            Asked(
                messages=messages,
                request=asked,
                authorization=authorization,
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                fault=fault,
                at=time.time(),
            )
        )
        if self.usage:
            body["usage"] = {
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            }
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.hang_seconds if fault == "hang" else self.delay_seconds)
            if fault in ("", "hang"):
                return web.json_response(body)
            return await misbehave(
                request, fault, body, retry_after=self.retry_after, again=self.again
            )
        finally:
            self.at_once -= 1


def logprob(token: str) -> float:
    """Of any word, the same wherever it stands."""
    return -math.log(1 + sum(token.strip().encode()) % 50)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--answer", choices=sorted(ANSWERS), default="echo")
    parser.add_argument("--delay-seconds", type=float, default=0.0)
    said = parser.parse_args()
    server = OpenAIServer(ANSWERS[said.answer], port=said.port, delay_seconds=said.delay_seconds)
    with server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
