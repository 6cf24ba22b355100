"""IMDB film reviews (Maas et al. 2011), the papers' "MR": all 50,000 labelled reviews, 40,000 for
training and 10,000 for test by a shuffle of ours, since the papers publish no split."""

from __future__ import annotations

from llmembed.texts.benchmarks.benchmark import Benchmark, Tables
from llmembed.texts.columns import Columns
from llmembed.texts.hub import HubParquet

SPLIT_SEED = 20240605


def _split_anew(tables: Tables) -> Tables:
    """The hub's 25,000 + 25,000 in a fixed order (split, label, text), shuffled by the seed."""
    import random

    import pyarrow as pa

    ordered = pa.concat_tables(
        [
            tables[split].sort_by([("label", "ascending"), ("text", "ascending")])
            for split in ("train", "test")
        ]
    )
    rows = list(range(len(ordered)))
    random.Random(SPLIT_SEED).shuffle(rows)
    cut = len(rows) * 4 // 5
    return {"train": ordered.take(rows[:cut]), "test": ordered.take(rows[cut:])}


BENCHMARK = Benchmark(
    name="imdb",
    title="IMDB film reviews (the papers' MR), sentiment",
    columns=Columns(),
    official={"train": 40000, "test": 10000},
    folders=("imdb",),
    hub=HubParquet(
        id="stanfordnlp/imdb",
        files={"train": ["*train*.parquet"], "test": ["*test*.parquet"]},
        classes={"label": ("negative", "positive")},
    ),
    from_hub=_split_anew,
    notes={"split": f"40,000/10,000 by a shuffle with seed {SPLIT_SEED}; no published split"},
    hub_notes={
        "split": f"40,000/10,000 by a shuffle with seed {SPLIT_SEED} of rows ordered by text, so "
        "not the rows of a local copy that was shuffled in file order"
    },
)
