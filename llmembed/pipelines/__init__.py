"""What a user asks for, each a few plain steps: the command line and the jobs call these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmembed.pipelines.checking import doctor
    from llmembed.pipelines.comparing import compare, fit
    from llmembed.pipelines.embedding import embed
    from llmembed.pipelines.estimating import estimate
    from llmembed.pipelines.predicting import predict
    from llmembed.pipelines.reporting import report, show_recipes

_PUBLIC = {
    "compare": "comparing",
    "doctor": "checking",
    "embed": "embedding",
    "estimate": "estimating",
    "fit": "comparing",
    "predict": "predicting",
    "report": "reporting",
    "show_recipes": "reporting",
}
__all__ = ["compare", "doctor", "embed", "estimate", "fit", "predict", "report", "show_recipes"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(f"llmembed.pipelines.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
