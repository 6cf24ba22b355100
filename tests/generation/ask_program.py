"""Asks an endpoint so many prompts, four at a time: started by tests, and killed by them."""

from __future__ import annotations

import sys

from llmembed.generation import EndpointGenerator, Message, Prompt, ResponseCache, Sampling


def prompts(count: int) -> list[Prompt]:
    return [
        (
            Message(role="system", content="say the last line again"),
            Message(role="user", content=f"text number {i}\nanswer {i}"),
        )
        for i in range(count)
    ]


if __name__ == "__main__":
    url, path, count = sys.argv[1:]
    EndpointGenerator(
        model="scripted",
        base_url=url,
        api_key_env=None,
        concurrency=4,
        cache=ResponseCache(path),
    ).generate(prompts(int(count)), Sampling())
