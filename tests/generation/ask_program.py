"""Asks an endpoint so many prompts, four at a time: started by tests, and killed by them."""

from __future__ import annotations

import sys

from test_endpoint import prompts

from llmembed.generation import EndpointGenerator, ResponseCache, Sampling

if __name__ == "__main__":
    url, path, count = sys.argv[1:]
    EndpointGenerator(
        model="scripted",
        base_url=url,
        api_key_env=None,
        concurrency=4,
        cache=ResponseCache(path),
    ).generate(prompts(int(count)), Sampling())
