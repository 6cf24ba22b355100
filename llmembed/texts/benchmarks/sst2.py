"""SST-2 as in GLUE: phrases and sentences of film reviews, positive or negative. The development
set is the test set here, since GLUE keeps its test labels to itself."""

from __future__ import annotations

from llmembed.texts.benchmarks.benchmark import Benchmark, Tables
from llmembed.texts.columns import Columns
from llmembed.texts.hub import HubParquet


def _without_trailing_spaces(tables: Tables) -> Tables:
    import pyarrow.compute as pc

    return {
        split: table.set_column(
            table.column_names.index("text"), "text", pc.utf8_rtrim_whitespace(table["text"])
        )
        for split, table in tables.items()
    }


BENCHMARK = Benchmark(
    name="sst2",
    title="SST-2 (GLUE), sentiment of film-review phrases",
    columns=Columns(),
    official={"train": 67349, "test": 872},
    folders=("sst2",),
    hub=HubParquet(
        id="stanfordnlp/sst2",
        files={"train": ["*train*.parquet"], "test": ["*validation*.parquet"]},
        rename={"sentence": "text"},
        classes={"label": ("negative", "positive")},
    ),
    from_hub=_without_trailing_spaces,
    notes={"test_set": "the GLUE development set; GLUE's test labels are not public"},
)
