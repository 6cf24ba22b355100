"""What the methods that ask a language model share: the model, what is shown, whose words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from llmembed.backbones import View
from llmembed.contract import Task
from llmembed.generation import Generator
from llmembed.methods.asked import InvalidAnswers, generator_settings
from llmembed.prompts.question import Question, make_question
from llmembed.prompts.templates import Variant


@dataclass(frozen=True, kw_only=True)
class Prompted:
    """``view``: where nearest demonstrations are found. ``benchmark`` names the data set whose
    readable label names and sort of text are used; ``verbaliser`` (task -> label -> name) and
    ``text_kind`` go before it."""

    generator: Generator
    view: View | None = None
    invalid: InvalidAnswers = field(default_factory=InvalidAnswers)
    benchmark: str | None = None
    verbaliser: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    text_kind: str | None = None
    seed: int = 0

    @property
    def machinery_only(self) -> bool:
        return self.generator.machinery_only is not None

    @property
    def shared_settings(self) -> dict[str, Any]:
        """What the leaderboard shows of all such methods."""
        return {
            "generator": generator_settings(self.generator),
            "view": self.view,
            "invalid": self.invalid.to_json(),
            "benchmark": self.benchmark,
            "verbaliser": self.verbaliser,
            "text_kind": self.text_kind,
        }

    def seeded(self, seed: int) -> Self:
        return replace(self, seed=seed)

    def question(
        self, tasks: Sequence[Task], variant: Variant, template: str | Path | None
    ) -> Question:
        """What is asked of ``tasks``, in this method's words. Raises ``ConfigError``."""
        return make_question(
            tasks,
            variant,
            template=template,
            benchmark=self.benchmark,
            verbaliser=self.verbaliser,
            text_kind=self.text_kind,
        )
