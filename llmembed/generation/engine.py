"""A language model run by the cluster's own library, as a runtime is asked for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A language model that the cluster's own library runs (vLLM), instead of a ``Stage`` of ours.

    ``model``: folder or hub id; ``settings``: the engine's. ``request`` makes of a row what is
    added to it for the engine, ``answer`` of a row what is sent back; both picklable.
    """

    model: str
    settings: Mapping[str, Any]
    request: Callable[[Mapping[str, Any]], dict[str, Any]]
    answer: Callable[[Mapping[str, Any]], dict[str, Any]]


@runtime_checkable
class EngineRuntime(Protocol):
    """A runtime that can run an ``Engine`` where there is a GPU for it."""

    def gpus(self) -> float:
        """Of the whole cluster."""
        ...

    def lacks_engine(self) -> str | None:
        """Why no engine can run, or None."""
        ...

    def map_engine(self, table: pa.Table, engine: Engine, *, label: str) -> Iterator[pa.Table]:
        """Send rows through ``engine``; otherwise as ``Runtime.map_texts``."""
        ...
