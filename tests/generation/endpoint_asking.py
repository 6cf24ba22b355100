"""An endpoint generator for the test's own server."""

from __future__ import annotations

from typing import Any

from openai_server import OpenAIServer

from llmembed.generation import (
    EndpointGenerator,
)


def ask(server: OpenAIServer, **settings: Any) -> EndpointGenerator:
    return EndpointGenerator(
        **{"model": "scripted", "base_url": server.url, "api_key_env": None, **settings}
    )
