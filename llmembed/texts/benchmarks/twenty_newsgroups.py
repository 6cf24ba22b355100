"""20 Newsgroups by date, raw posts with headers, quotes and footers: the newsgroup (``topic``, 20
classes) and the first part of its name (``root``, 7 classes) from one load."""

from __future__ import annotations

from llmembed.texts.benchmarks.benchmark import Benchmark, Tables
from llmembed.texts.columns import Columns
from llmembed.texts.hub import CONVERTED, HubParquet


def _labelled_by_folder(tables: Tables) -> Tables:
    """On the hub each newsgroup is a configuration of its own: ``bydate_NAME/SPLIT/…``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    labelled: Tables = {}
    for split, table in tables.items():
        folder = pc.list_element(pc.split_pattern(table["file"], "/"), 0)
        label = pc.replace_substring(folder, "bydate_", "")
        root = pc.list_element(pc.split_pattern(label, "."), 0)
        labelled[split] = pa.table({"text": table["text"], "label": label, "root": root})
    return labelled


BENCHMARK = Benchmark(
    name="20ng",
    title="20 Newsgroups by date, newsgroup and its root",
    columns=Columns(labels={"topic": "label", "root": "root"}),
    official={"train": 11314, "test": 7532},
    folders=("20ng",),
    hub=HubParquet(
        id="google-research-datasets/newsgroup",
        revision=CONVERTED,
        files={
            "train": ["bydate_*/train/*.parquet"],
            "test": ["bydate_*/test/*.parquet"],
        },
    ),
    from_hub=_labelled_by_folder,
    notes={"text": "posts keep headers such as From and Organization, which give class cues"},
)
