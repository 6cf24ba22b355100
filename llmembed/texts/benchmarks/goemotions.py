"""GoEmotions (Demszky et al. 2020): Reddit comments, each of one or several of 27 emotions or
neutral. The release that is filtered by agreement, with its own three parts."""

from __future__ import annotations

from llmembed.texts.benchmarks.benchmark import Benchmark, Tables
from llmembed.texts.columns import Columns
from llmembed.texts.hub import HubParquet

EMOTIONS = (
    "admiration",
    "amusement",
    "anger",
    "annoyance",
    "approval",
    "caring",
    "confusion",
    "curiosity",
    "desire",
    "disappointment",
    "disapproval",
    "disgust",
    "embarrassment",
    "excitement",
    "fear",
    "gratitude",
    "grief",
    "joy",
    "love",
    "nervousness",
    "optimism",
    "pride",
    "realization",
    "relief",
    "remorse",
    "sadness",
    "surprise",
    "neutral",
)
"""In the order of the release's own numbers."""


def _named(tables: Tables) -> Tables:
    """The hub's lists of numbers, where they are not named yet, as lists of names."""
    import pyarrow as pa

    found: Tables = {}
    for split, table in tables.items():
        names = [
            [EMOTIONS[label] if isinstance(label, int) else label for label in row]
            for row in table["labels"].to_pylist()
        ]
        found[split] = pa.table(
            {"text": table["text"], "labels": pa.array(names, pa.list_(pa.string()))}
        )
    return found


BENCHMARK = Benchmark(
    name="goemotions",
    title="GoEmotions, 27 emotions and neutral of Reddit comments, one or several each",
    columns=Columns(labels={"emotions": "labels"}, kinds={"emotions": "multi"}),
    official={"train": 43410, "valid": 5426, "test": 5427},
    folders=("goemotions",),
    mirror={"train": "train", "valid": "dev", "test": "test"},
    hub=HubParquet(
        id="google-research-datasets/go_emotions",
        files={
            "train": ["simplified/train*.parquet"],
            "valid": ["simplified/validation*.parquet"],
            "test": ["simplified/test*.parquet"],
        },
    ),
    from_hub=_named,
    metrics={"emotions": "macro_f1"},
)
