"""Settings of the classifiers that are made of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from llmembed.methods.settings import MethodSettings, Parts

if TYPE_CHECKING:
    from llmembed.contract import Method


class EnsembleSettings(MethodSettings):
    kind: Literal["ensemble"]
    cost: ClassVar[int] = 110
    classifier: ClassVar[str] = "llmembed.methods.combined.ensemble_classifier:EnsembleClassifier"
    needs_all: ClassVar[bool] = False
    of: list[str] = Field(
        min_length=1, max_length=50, description="the experiment's methods that may be members"
    )
    how: Literal["best", "greedy", "stacked", "mean"] = Field(
        "best", description="how members are weighed; best: greedy or stacked"
    )

    @field_validator("of")
    @classmethod
    def _once(cls, names: list[str]) -> list[str]:
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is named twice")
        return names

    @property
    def methods_needed(self) -> tuple[str, ...]:
        return tuple(self.of)

    def build(self, name: str, key: str, parts: Parts) -> Method:
        from llmembed.methods.combined.ensemble import Ensemble

        return Ensemble(
            name=name,
            sources={each: parts.source(each, f"{key}.of") for each in self.of},
            how=self.how,
        )
