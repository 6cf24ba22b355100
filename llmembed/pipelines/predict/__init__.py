"""``predict``: files of any size are labelled, chunk by chunk, in parts that survive a kill."""

from __future__ import annotations

from llmembed.pipelines.predict.command import predict
from llmembed.pipelines.predict.outcome import Predicted

__all__ = ["Predicted", "predict"]
