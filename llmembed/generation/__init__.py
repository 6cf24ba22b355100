"""Causal language models as text generators: local and behind OpenAI-compatible endpoints."""

from __future__ import annotations

from llmembed.generation.request import Answer, Generator, Message, Prompt, Role, Sampling

__all__ = ["Answer", "Generator", "Message", "Prompt", "Role", "Sampling"]
