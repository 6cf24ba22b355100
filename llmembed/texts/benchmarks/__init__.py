"""Benchmark data sets, one file each. A new one: a file with a ``BENCHMARK`` and a line here."""

from __future__ import annotations

from llmembed.texts.benchmarks import (
    agnews,
    imdb,
    massive_en,
    r8,
    r52,
    sst2,
    stdlib_docs,
    twenty_newsgroups,
)
from llmembed.texts.benchmarks.benchmark import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    "default": stdlib_docs.BENCHMARK,
    "sst2": sst2.BENCHMARK,
    "imdb": imdb.BENCHMARK,
    "agnews": agnews.BENCHMARK,
    "r8": r8.BENCHMARK,
    "r52": r52.BENCHMARK,
    "20ng": twenty_newsgroups.BENCHMARK,
    "massive-en": massive_en.BENCHMARK,
}

__all__ = ["BENCHMARKS", "Benchmark"]
