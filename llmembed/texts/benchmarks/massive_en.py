"""MASSIVE 1.1, en-US: what people say to a voice assistant; intent (60 classes) and scenario (18)
of the utterance, and slots as BIO tags of its words. Its development set is the validation split.
"""

from __future__ import annotations

import re

from llmembed.texts.benchmarks.benchmark import Benchmark, Tables
from llmembed.texts.columns import Columns
from llmembed.texts.hub import CONVERTED, HubParquet

MARKED = re.compile(r"\[\s*(?P<slot>[^\s:\]]+)\s*:\s*(?P<value>[^\]]*?)\s*\]|(?P<plain>[^\s\[]+)")


def tagged(annotated: str) -> tuple[list[str], list[str]]:
    """``wake me at [time : five am]`` -> its words and a BIO tag for each."""
    words: list[str] = []
    tags: list[str] = []
    for part in MARKED.finditer(annotated):
        if part["plain"] is not None:
            words.append(part["plain"])
            tags.append("O")
            continue
        inside = part["value"].split()
        words += inside
        tags += [f"{'I' if i else 'B'}-{part['slot']}" for i in range(len(inside))]
    return words, tags


def _with_slots(tables: Tables) -> Tables:
    import pyarrow as pa

    strings = pa.list_(pa.string())
    for split, table in tables.items():
        pairs = [tagged(text) for text in table["annot"].to_pylist()]
        tables[split] = pa.table(
            {
                **{name: table[name] for name in ("text", "intent", "scenario")},
                "tokens": pa.array([words for words, _ in pairs], strings),
                "slots": pa.array([tags for _, tags in pairs], strings),
            }
        )
    return tables


BENCHMARK = Benchmark(
    name="massive-en",
    title="MASSIVE 1.1 en-US, intent, scenario and slots of assistant requests",
    columns=Columns(
        labels={"intent": "intent", "scenario": "scenario", "slots": "slots"},
        kinds={"slots": "tokens"},
        words="tokens",
    ),
    official={"train": 11514, "valid": 2033, "test": 2974},
    folders=("massive-en",),
    mirror={"train": "train", "valid": "dev", "test": "test"},
    hub=HubParquet(
        id="AmazonScience/massive",
        revision=CONVERTED,
        files={
            "train": ["en-US/train/*.parquet"],
            "valid": ["en-US/validation/*.parquet"],
            "test": ["en-US/test/*.parquet"],
        },
        rename={"utt": "text", "annot_utt": "annot"},
    ),
    from_hub=_with_slots,
)
