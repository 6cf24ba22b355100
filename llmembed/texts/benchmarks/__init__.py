"""Benchmark data sets, one file each. A new one: a file with a ``BENCHMARK`` and a line here;
packages add theirs by entry points of the group ``llmembed.benchmarks``, each a ``Benchmark``."""

from __future__ import annotations

from llmembed.plugins import Table
from llmembed.texts.benchmarks import (
    agnews,
    goemotions,
    imdb,
    massive_en,
    r8,
    r52,
    sst2,
    stdlib_docs,
    twenty_newsgroups,
)
from llmembed.texts.benchmarks.benchmark import Benchmark


def _problem(name: str, made: object) -> str | None:
    if not isinstance(made, Benchmark):
        return f"expected a Benchmark, got {made!r}"
    return None if made.name == name else f"the Benchmark is called {made.name!r}"


_OWN: dict[str, Benchmark | str] = {
    "default": stdlib_docs.BENCHMARK,
    "sst2": sst2.BENCHMARK,
    "imdb": imdb.BENCHMARK,
    "agnews": agnews.BENCHMARK,
    "r8": r8.BENCHMARK,
    "r52": r52.BENCHMARK,
    "20ng": twenty_newsgroups.BENCHMARK,
    "massive-en": massive_en.BENCHMARK,
    "goemotions": goemotions.BENCHMARK,
}
BENCHMARKS: Table[Benchmark] = Table("llmembed.benchmarks", _OWN, check=_problem)

__all__ = ["BENCHMARKS", "Benchmark"]
