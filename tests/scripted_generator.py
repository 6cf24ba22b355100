"""A generator that answers by a rule instead of a model: what stands where the network would be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llmembed.contract import Usage
from llmembed.generation import Answer, Message, Prompt, Sampling

Rule = Callable[[Prompt, Sampling], Any]


class Cut(str):
    """An answer that was cut at its longest."""


def whole(prompt: Prompt) -> str:
    return "\n".join(message.content for message in prompt)


def asked_text(prompt: Prompt) -> str:
    """The text between the markers of the last turn."""
    return prompt[-1].content.partition("<<< text\n")[2].partition("\n>>> text")[0]


@dataclass
class Scripted:
    """``rule`` gives the answer's text, or (text, logprobs), or None for no answer at all.
    A token is a word. ``asked`` keeps every question."""

    rule: Rule
    name: str = "scripted"
    context: int | None = None
    machinery_only: str | None = "answers by a rule"
    gives_scores: bool = False
    scorer: Callable[[Prompt, str], float] | None = None
    description: Mapping[str, Any] | None = None
    asked: list[tuple[Prompt, Sampling]] = field(default_factory=list)
    counted: int = 0
    _used: Usage = field(default_factory=Usage)
    _paid: Usage = field(default_factory=Usage)

    def to_json(self) -> dict[str, Any]:
        return dict(self.description or {"kind": "endpoint", "model": "m", "base_url": "http://h"})

    def count_tokens(self, prompts):
        self.counted += len(prompts)
        return [len(whole(prompt).split()) for prompt in prompts]

    def generate(self, prompts, sampling, runtime=None):
        return [self._answer(prompt, sampling) for prompt in prompts]

    def _answer(self, prompt, sampling) -> Answer:
        self.asked.append((prompt, sampling))
        given = self.rule(prompt, sampling)
        tokens = len(whole(prompt).split())
        if given is None:
            took = Usage(prompt_tokens=tokens, calls=1)
            answer = Answer(
                text="", finish="failed", prompt_tokens=tokens, completion_tokens=0, reason="down"
            )
        else:
            text, logprobs = given if isinstance(given, tuple) else (given, None)
            answer = Answer(
                text=text,
                finish="length" if isinstance(text, Cut) else "stop",
                prompt_tokens=tokens,
                completion_tokens=len(text.split()),
                logprobs=logprobs if sampling.logprobs else None,
            )
            took = Usage(
                seconds=0.5, prompt_tokens=tokens, completion_tokens=len(text.split()), calls=1
            )
        self._used += took
        self._paid += took
        return answer

    def score(self, prompts, candidates, runtime=None):
        assert self.scorer is not None
        self._used += Usage(tokens=len(prompts) * len(candidates))
        rows = [[self.scorer(prompt, name) for name in candidates] for prompt in prompts]
        return np.array(rows, dtype=np.float32).reshape(len(prompts), len(candidates))

    def used(self) -> Usage:
        used, self._used = self._used, Usage()
        return used

    def paid(self) -> Usage:
        return self._paid


def user(text: str) -> Prompt:
    return (Message(role="user", content=text),)
