"""Settings of the methods that train a whole model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from llmembed.errors import ConfigError
from llmembed.experiment.mistakes import sentence, suggest
from llmembed.finetuning import FinetuneConfig

RECIPES: dict[str, Callable[[], FinetuneConfig]] = {
    "ours": FinetuneConfig,
    "paper": FinetuneConfig.paper,
    "paper-decoder": FinetuneConfig.paper_decoder,
}


class _Finetuning(BaseModel):
    """What ``encoder`` and ``decoder`` share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field("minilm", description="preset, hub id or folder")
    revision: str | None = None
    training: dict[str, Any] = Field({}, description="see FinetuneConfig; `recipe: paper` too")
    separate: bool = Field(False, description="a model of its own for each task")
    workers: int | Literal["auto"] = "auto"
    zero: Literal["auto", "off", 0, 1, 2, 3] = Field("auto", description="DeepSpeed's ZeRO stage")
    offload: bool | Literal["auto"] = "auto"

    @field_validator("training")
    @classmethod
    def _training(cls, values: dict[str, Any]) -> dict[str, Any]:
        finetune_config(values)
        return values


class EncoderSettings(_Finetuning):
    kind: Literal["encoder"]
    pooling: Literal["mean", "cls"] = "mean"


class DecoderSettings(_Finetuning):
    kind: Literal["decoder"]
    model: str = Field(description="hub id or folder of a causal model")
    shots: int = Field(0, ge=0, description="demonstrations in every prompt")
    instructions: bool = Field(True, description="false: the text and the cue alone")
    decision: Literal["auto", "generate", "score"] = "auto"
    verbaliser: dict[str, dict[str, str]] = Field({}, description="task: {label: readable name}")
    text_kind: str | None = Field(None, description="such as `news article`")
    template: str | None = Field(None, description="a file of one's own")


def finetune_config(values: Mapping[str, Any]) -> FinetuneConfig:
    """The settings of ``recipe`` (``ours``, ``paper`` or ``paper-decoder``), changed by the other
    keys. Raises ``ConfigError``."""
    changes = dict(values)
    recipe = changes.pop("recipe", "ours")
    known = {field.name: None for field in fields(FinetuneConfig) if field.name != "seed"}
    for key in changes:
        if key not in known:
            raise ConfigError(f"unknown key {key!r}{suggest(key, {'recipe': None, **known})}")
    if recipe not in RECIPES:
        raise ConfigError(f"unknown recipe {recipe!r}; known are {', '.join(RECIPES)}")
    try:
        # pydantic reads 1e-3, which YAML takes for a word, and refuses 2.5 steps.
        return TypeAdapter(FinetuneConfig).validate_python(
            {**RECIPES[recipe]().to_json(), **changes}
        )
    except ValidationError as error:
        raise ConfigError(sentence(error)) from None
