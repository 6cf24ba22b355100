"""From settings to the methods that train a whole model."""

from __future__ import annotations

from typing import Any

from llmembed.contract import Method
from llmembed.errors import ConfigError
from llmembed.experiment import DecoderSettings, EncoderSettings, finetune_config


def make(name: str, settings: EncoderSettings | DecoderSettings, benchmark: str | None) -> Method:
    """The method that ``settings`` describe; ``benchmark``: whose readable labels it uses."""
    from llmembed.methods.finetuned.separate import Separate

    method = _one_model(name, settings, benchmark)
    return Separate(each=method) if settings.separate else method


def _one_model(
    name: str, settings: EncoderSettings | DecoderSettings, benchmark: str | None
) -> Method:
    from llmembed.methods.finetuned.base import Spread

    common: dict[str, Any] = {
        "name": name,
        "model": settings.model,
        "revision": settings.revision,
        "training": finetune_config(settings.training),
        "spread": Spread(workers=settings.workers, zero=settings.zero, offload=settings.offload),
    }
    try:
        if isinstance(settings, EncoderSettings):
            from llmembed.methods.finetuned.encoder import Encoder

            return Encoder(**common, pooling=settings.pooling)
        from llmembed.methods.finetuned.decoder import Decoder

        return Decoder(
            **common,
            shots=settings.shots,
            instructions=settings.instructions,
            decision=settings.decision,
            benchmark=benchmark,
            verbaliser=settings.verbaliser,
            text_kind=settings.text_kind,
            template=settings.template,
        )
    except ConfigError as error:
        raise ConfigError(f"methods.{name}: {error}") from None
