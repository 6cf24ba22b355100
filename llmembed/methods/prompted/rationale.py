"""Why one training text has its label, in a model's words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from llmembed.contract import Usage
from llmembed.prompts.json_in_prose import without_thoughts

Key = tuple[str, str, str]
"""Text key, task, label."""


@dataclass(frozen=True, kw_only=True)
class Rationale:
    """Why a training text has its label. ``key``: the text's, as in the embedding store, in
    hexadecimal digits; ``usage``: what both answers took."""

    key: str
    task: str
    label: str
    clues: str
    reasoning: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    usage: Usage

    @property
    def place(self) -> Key:
        return self.key, self.task, self.label

    @property
    def whole(self) -> bool:
        """Earlier versions kept empty ones, too."""
        return bool(self.clues and self.reasoning)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "usage": json.dumps(self.usage.to_json())}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Rationale:
        return cls(**{**data, "usage": Usage.from_json(json.loads(data["usage"]))})


def one_line(answer: str, cue: str) -> str:
    """An answer on one line, without thoughts and a repeated cue: it stands in a prompt again."""
    said = " ".join(without_thoughts(answer).split())
    start = f"{cue}:"
    return said[len(start) :].strip() if said.casefold().startswith(start) else said
