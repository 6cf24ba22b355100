"""Settings of the methods that ask a language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from llmembed.errors import ConfigError
from llmembed.methods.settings import MethodSettings, Parts

if TYPE_CHECKING:
    from llmembed.contract import Method


class PromptedSettings(MethodSettings):
    """What all of them share."""

    generator: str = Field("llm", description="one of `generators`")
    k: int | None = Field(None, ge=0, description="demonstrations shown")
    demonstrations: Literal["none", "random", "nearest"] | None = None
    view: str = Field("encoder own", description="in which the nearest are found")
    invalid: Literal["wrong", "retry", "nearest"] = Field(
        "wrong", description="what becomes of answers that can't be read"
    )
    retries: int = Field(2, ge=1, le=10, description="for invalid: retry")
    verbaliser: dict[str, dict[str, str]] = Field({}, description="task: {label: readable name}")
    text_kind: str | None = Field(None, description="such as `news article`")
    max_answer_tokens: int | None = Field(None, ge=1)

    @field_validator("generator")
    @classmethod
    def _word(cls, name: str) -> str:
        if not name.strip():
            raise ValueError("names no generator")
        return name

    @property
    def generators_asked(self) -> tuple[str, ...]:
        return (self.generator,)

    @property
    def shows(self) -> bool:
        """Whether its prompts hold demonstrations."""
        return self.k != 0

    @property
    def _reads_view(self) -> bool:
        nearest = self.shows and self.demonstrations in (None, "nearest")
        return nearest or self.invalid == "nearest"

    def views_read(self, key: str, named: Mapping[str, str]) -> dict[str, str]:
        return {f"{key}.view": self.view} if self._reads_view else {}

    def build(self, name: str, key: str, parts: Parts) -> Method:
        from llmembed.methods.asked import InvalidAnswers

        generator = parts.generator(self.generator, f"{key}.generator")
        view = parts.view(self.view, f"{key}.view") if self._reads_view else None
        nearest = view if self.invalid == "nearest" else None
        given = {
            word: value
            for word in ("k", "demonstrations", "max_answer_tokens")
            if (value := getattr(self, word)) is not None
        }
        common: Mapping[str, Any] = {
            "name": name,
            "generator": generator,
            "view": view,
            "invalid": InvalidAnswers(policy=self.invalid, retries=self.retries, view=nearest),
            "benchmark": parts.benchmark,
            "verbaliser": self.verbaliser,
            "text_kind": self.text_kind,
            **given,
        }
        try:
            return self.asking(common)
        except ConfigError as error:
            raise ConfigError(f"{key}: {error}") from None

    def asking(self, common: Mapping[str, Any]) -> Method:
        """The method; ``common``: what all of them take."""
        raise NotImplementedError


class PromptSettings(PromptedSettings):
    kind: Literal["prompt"]
    cost: ClassVar[int] = 50
    classifier: ClassVar[str] = "llmembed.methods.prompt_classifier:PromptClassifier"
    style: Literal["io", "zero_shot", "k_shot"] = "k_shot"
    decision: Literal["generate", "score"] = "generate"
    calibrate: bool = Field(False, description="divide scores by those of a text without content")
    template: str | None = Field(None, description="a file of one's own")

    @property
    def shows(self) -> bool:
        return self.style != "zero_shot" and self.k != 0

    def asking(self, common: Mapping[str, Any]) -> Method:
        from llmembed.methods.prompted.prompt import Prompting

        return Prompting(
            **common,
            style=self.style,
            decision=self.decision,
            calibrate=self.calibrate,
            template=self.template,
        )


class CarpSettings(PromptedSettings):
    kind: Literal["carp"]
    cost: ClassVar[int] = 60
    classifier: ClassVar[str] = "llmembed.methods.prompted.carp_classifier:CarpClassifier"
    rounds: int = Field(3, ge=1, le=100)
    temperature: float = Field(0.7, ge=0)
    vote: Literal["majority", "weighted"] = "majority"
    templates: dict[str, str] = Field({}, description="part: a file of one's own")
    max_rationale_tokens: int = Field(192, ge=8)

    def asking(self, common: Mapping[str, Any]) -> Method:
        from llmembed.methods.prompted.carp import Carp
        from llmembed.methods.prompted.voting import Rounds

        rounds = Rounds(number=self.rounds, temperature=self.temperature, vote=self.vote)
        return Carp(
            **common,
            rounds=rounds,
            templates=self.templates,
            max_rationale_tokens=self.max_rationale_tokens,
        )
