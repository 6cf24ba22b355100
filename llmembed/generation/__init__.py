"""Causal language models as text generators: local and behind OpenAI-compatible endpoints."""

from __future__ import annotations

from llmembed.generation.budget import Budget, Spending
from llmembed.generation.cache import ResponseCache
from llmembed.generation.endpoint import EndpointGenerator
from llmembed.generation.estimate import Estimate, estimate, estimate_scores
from llmembed.generation.local import LocalGenerator
from llmembed.generation.request import Answer, Generator, Sampling
from llmembed.prompts import Message, Prompt, Role

__all__ = [
    "Answer",
    "Budget",
    "EndpointGenerator",
    "Estimate",
    "Generator",
    "LocalGenerator",
    "Message",
    "Prompt",
    "ResponseCache",
    "Role",
    "Sampling",
    "Spending",
    "estimate",
    "estimate_scores",
]
