"""llmembed turns labelled text into the best deployable classifier for a given budget.

::

    texts ─► backbones ─► embeddings store ─► fusion ─► head ─► evaluation ─► registry ─► serving
             (Ray Data actors)                (Ray Tune)                      (MLflow)    (Serve)

Every approach stands behind one contract (``llmembed.contract``), so that one leaderboard
compares accuracy, energy, cost and latency. Importing this package loads nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from llmembed.cluster import LocalRuntime as LocalRuntime
    from llmembed.cluster import RayRuntime as RayRuntime
    from llmembed.embeddings import embed as embed
    from llmembed.methods import load as load
    from llmembed.permissions import Allowed as Allowed
    from llmembed.texts import load_corpus as load_corpus

_PUBLIC = {
    "Allowed": "llmembed.permissions",
    "LocalRuntime": "llmembed.cluster",
    "RayRuntime": "llmembed.cluster",
    "embed": "llmembed.embeddings",
    "load": "llmembed.methods",
    "load_corpus": "llmembed.texts",
}
__all__ = ["Allowed", "LocalRuntime", "RayRuntime", "embed", "load", "load_corpus", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
