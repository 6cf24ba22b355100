"""AG News (Zhang et al. 2015), title and description. The local copy ``agnews-part`` holds the
whole test set, but 15,197 of the 120,000 training rows only. Option ``balanced``: of such a copy,
the rows marked so, as many for each class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmembed.errors import ConfigError
from llmembed.texts.benchmarks.benchmark import Benchmark, Tables
from llmembed.texts.columns import Columns
from llmembed.texts.hub import HubParquet


def _balance(tables: Tables, options: Mapping[str, Any]) -> Tables:
    if not options.get("balanced"):
        return tables
    train = tables["train"]
    if "balanced" not in train.column_names:
        raise ConfigError("option balanced is for the partial copy of agnews; this one is whole")
    return {**tables, "train": train.filter(train["balanced"])}


BENCHMARK = Benchmark(
    name="agnews",
    title="AG News, topic of news items",
    columns=Columns(),
    official={"train": 120000, "test": 7600},
    folders=("agnews", "agnews-part"),
    hub=HubParquet(
        id="fancyzhx/ag_news",
        files={"train": ["*train*.parquet"], "test": ["*test*.parquet"]},
        classes={"label": ("World", "Sports", "Business", "Sci/Tech")},
    ),
    prepare=_balance,
    options=("balanced",),
)
