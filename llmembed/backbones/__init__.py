"""A frozen Hugging Face model as a reader of texts: texts -> token ids -> (N, R, D).

``resolve`` turns a name into a ``BackboneSpec``, which says everything that changes a number;
``Tokeniser`` and ``Backbone`` do what a spec says; ``embed_texts`` is both in one call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmembed.backbones.presets import PRESETS, Preset
from llmembed.backbones.spec import BackboneSpec, Read, View, parse_reads, sorted_reads

if TYPE_CHECKING:
    from llmembed.backbones.backbone import Backbone, embed_texts
    from llmembed.backbones.batching import Work
    from llmembed.backbones.hardware import best_dtype
    from llmembed.backbones.poolings import poolings_of
    from llmembed.backbones.resolving import how_read, own_reads, resolve
    from llmembed.backbones.tokeniser import TokenisedBatch, Tokeniser

# These load torch or transformers, so they come when first asked for.
_LAZY = {
    "Backbone": "backbone",
    "Work": "batching",
    "best_dtype": "hardware",
    "embed_texts": "backbone",
    "poolings_of": "poolings",
    "how_read": "resolving",
    "own_reads": "resolving",
    "resolve": "resolving",
    "TokenisedBatch": "tokeniser",
    "Tokeniser": "tokeniser",
}

__all__ = [
    "PRESETS",
    "Backbone",
    "BackboneSpec",
    "Preset",
    "Read",
    "TokenisedBatch",
    "Tokeniser",
    "View",
    "Work",
    "best_dtype",
    "embed_texts",
    "how_read",
    "own_reads",
    "parse_reads",
    "poolings_of",
    "resolve",
    "sorted_reads",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(f"llmembed.backbones.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
