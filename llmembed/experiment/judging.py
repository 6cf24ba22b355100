"""What is optimised, as settings: the metric, and what mistakes cost."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from llmembed.metrics import is_known
from llmembed.metrics.names import NAMES
from llmembed.mistakes import suggest


def _known(metric: str | dict[str, str] | None) -> str | dict[str, str] | None:
    named = metric if isinstance(metric, dict) else {} if metric is None else {"": metric}
    every = dict.fromkeys(name for names in NAMES.values() for name in names)
    for name in named.values():
        if not is_known(name):
            raise ValueError(f"unknown metric {name!r}{suggest(name, every)}")
    return metric


Metric = Annotated[
    str | dict[str, str] | None,
    AfterValidator(_known),
    Field(description="what every choice goes by: a name, or {task: name}; see llmembed.metrics"),
]
"""Whether it fits the tasks is known when they are."""

Cost = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Costs = Annotated[
    dict[str, dict[str, dict[str, Cost]]],
    Field(description="task: {truth: {answer: cost}}; unnamed: 0 if right, else 1"),
]
