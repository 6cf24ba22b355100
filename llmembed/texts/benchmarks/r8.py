"""R8: Reuters-21578, single-topic ModApte documents of the 8 most frequent classes
(Cardoso-Cachopo), all terms: letters only, lower case."""

from __future__ import annotations

from llmembed.texts.benchmarks.benchmark import Benchmark
from llmembed.texts.columns import Columns
from llmembed.texts.hub import CONVERTED, HubParquet

BENCHMARK = Benchmark(
    name="r8",
    title="Reuters R8, topic of news agency items",
    columns=Columns(),
    official={"train": 5485, "test": 2189},
    folders=("r8",),
    # A copy by others; where it holds out validation rows of its own, they are train rows here,
    # and the row counts tell whether it is whole.
    hub=HubParquet(
        id="dxgp/R8",
        revision=CONVERTED,
        files={
            "train": ["*/train/*.parquet", "*/validation/*.parquet"],
            "test": ["*/test/*.parquet"],
        },
    ),
)
