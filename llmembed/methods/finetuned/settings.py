"""Settings of the methods that train a whole model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from llmembed.errors import ConfigError
from llmembed.finetuning import FinetuneConfig
from llmembed.finetuning.settings import Recipe, finetune_config
from llmembed.methods.settings import MethodSettings, Parts

if TYPE_CHECKING:
    from llmembed.contract import Method
    from llmembed.methods.finetuned.base import Spread


class FinetunedSettings(MethodSettings):
    """What all of them share. ``searched``: settings beside those of the training that a sweep
    may search; ``causal``: whether the model writes, so that it may have adapters."""

    searched: ClassVar[tuple[str, ...]]
    causal: ClassVar[bool]
    ours: ClassVar[Recipe]

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
        finetune_config(values, cls.ours)
        return values

    @property
    def config(self) -> FinetuneConfig:
        """How the model is trained."""
        return finetune_config(self.training, type(self).ours)

    def spread(self, workers: int | Literal["auto"] | None = None) -> Spread:
        """On how many workers it is trained, or as it would be on ``workers``."""
        from llmembed.methods.finetuned.base import Spread

        return Spread(workers=workers or self.workers, zero=self.zero, offload=self.offload)

    def build(self, name: str, key: str, parts: Parts) -> Method:
        from llmembed.methods.finetuned.separate import Separate

        common = {
            "name": name,
            "model": self.model,
            "revision": self.revision,
            "training": self.config,
            "spread": self.spread(),
        }
        try:
            method = self.of_one_model(common, parts)
        except ConfigError as error:
            raise ConfigError(f"{key}: {error}") from None
        return Separate(each=method) if self.separate else method

    def of_one_model(self, common: Mapping[str, Any], parts: Parts) -> Method:
        """The method that trains one model for all tasks; ``common``: what all methods take."""
        raise NotImplementedError


class EncoderSettings(FinetunedSettings):
    kind: Literal["encoder"]
    cost: ClassVar[int] = 30
    classifier: ClassVar[str] = "llmembed.methods.finetuned.encoder:EncoderClassifier"
    searched: ClassVar[tuple[str, ...]] = ("model", "pooling")
    causal: ClassVar[bool] = False
    ours: ClassVar[Recipe] = FinetuneConfig
    pooling: Literal["mean", "cls"] = "mean"

    def of_one_model(self, common: Mapping[str, Any], parts: Parts) -> Method:
        from llmembed.methods.finetuned.encoder import Encoder

        return Encoder(**common, pooling=self.pooling)


class DecoderSettings(FinetunedSettings):
    kind: Literal["decoder"]
    cost: ClassVar[int] = 40
    classifier: ClassVar[str] = "llmembed.methods.finetuned.decoder_classifier:DecoderClassifier"
    searched: ClassVar[tuple[str, ...]] = ("model", "shots", "instructions", "decision")
    causal: ClassVar[bool] = True
    ours: ClassVar[Recipe] = FinetuneConfig.decoder
    model: str = Field(description="hub id or folder of a causal model")
    shots: int = Field(0, ge=0, description="demonstrations in every prompt")
    instructions: bool = Field(True, description="false: the text and the cue alone")
    decision: Literal["auto", "generate", "score"] = "auto"
    verbaliser: dict[str, dict[str, str]] = Field({}, description="task: {label: readable name}")
    text_kind: str | None = Field(None, description="such as `news article`")
    template: str | None = Field(None, description="a file of one's own")

    def of_one_model(self, common: Mapping[str, Any], parts: Parts) -> Method:
        from llmembed.methods.finetuned.decoder import Decoder

        return Decoder(
            **common,
            shots=self.shots,
            instructions=self.instructions,
            decision=self.decision,
            benchmark=parts.benchmark,
            verbaliser=self.verbaliser,
            text_kind=self.text_kind,
            template=self.template,
        )


class SeparateSettings(MethodSettings):
    """A model of its own for each task: what ``separate: true`` of the others fits."""

    kind: Literal["separate"]
    offered: ClassVar[bool] = False
    cost: ClassVar[int] = 40
    classifier: ClassVar[str] = "llmembed.methods.finetuned.separate:SeparateClassifier"
