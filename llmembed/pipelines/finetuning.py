"""From settings to the methods that train a whole model."""

from __future__ import annotations

from llmembed.contract import Method
from llmembed.experiment import EncoderSettings, finetune_config


def make(name: str, settings: EncoderSettings) -> Method:
    """The method that ``settings`` describe."""
    from llmembed.methods.encoder import Encoder
    from llmembed.methods.finetuned import Spread

    return Encoder(
        name=name,
        model=settings.model,
        revision=settings.revision,
        pooling=settings.pooling,
        training=finetune_config(settings.training),
        spread=Spread(workers=settings.workers, zero=settings.zero, offload=settings.offload),
    )
