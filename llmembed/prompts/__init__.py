"""What is asked of a language model and what its answers say: templates, demonstrations as they
fit, names of labels, and the reading of answers."""

from __future__ import annotations

from llmembed.prompts.messages import Message, Prompt, Role

__all__ = ["Message", "Prompt", "Role"]
