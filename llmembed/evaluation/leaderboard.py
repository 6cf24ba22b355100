"""All methods on one corpus, aggregated over seeds, and the one to deploy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llmembed.errors import DataError
from llmembed.evaluation.result import Result
from llmembed.evaluation.rows import Row, row_of

if TYPE_CHECKING:
    from rich.console import RenderableType

TIE = 1e-12
"""Validation means closer than this are equal."""


class Leaderboard:
    """Rows of one corpus, best validation mean first, those that can't win last.

    Raises:
        DataError: the results are not all of the same corpus.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        self.results = tuple(results)
        corpora = sorted({(result.corpus, result.digest) for result in self.results})
        if len(corpora) > 1:
            names = ", ".join(f"{name} ({digest[:12]})" for name, digest in corpora)
            raise DataError(f"a leaderboard compares methods on one corpus, not on {names}")

    @property
    def corpus(self) -> str:
        return self.results[0].corpus if self.results else ""

    @property
    def partial(self) -> str | None:
        """In what the corpus falls short of the official data; belongs beside every figure."""
        return self.results[0].partial if self.results else None

    @property
    def primary(self) -> dict[str, str]:
        """Task -> the metric it is ranked by."""
        return {
            task: scores.primary for result in self.results for task, scores in result.valid.items()
        }

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        groups: dict[str, list[Result]] = {}
        for result in self.results:
            groups.setdefault(_row_key(result), []).append(result)
        rows = [row_of(group) for group in groups.values()]
        return tuple(
            sorted(
                rows,
                key=lambda row: (
                    not row.eligible,
                    -row.valid_mean.mean if row.valid_mean else math.inf,  # values may be below 0
                    row.energy_kwh or 0.0,
                ),
            )
        )

    @property
    def winner(self) -> Row | None:
        """The eligible row of the best validation mean; among equals the one of least energy."""
        eligible = [row for row in self.rows if row.eligible]
        if not eligible:
            return None
        best = max(row.valid_mean.mean for row in eligible if row.valid_mean)
        equal = [row for row in eligible if row.valid_mean and best - row.valid_mean.mean <= TIE]
        return min(equal, key=lambda row: row.energy_kwh or 0.0)

    @property
    def winner_result(self) -> Result | None:
        """The winner's fit with the best validation mean: the one to register."""
        winner = self.winner
        return None if winner is None else max(self.results_of(winner), key=_valid_value)

    def results_of(self, row: Row) -> list[Result]:
        """The sound results behind a row."""
        key = _key(row.label, row.settings)
        return [r for r in self.results if _row_key(r) == key and r.status == "ok"]

    def to_json(self) -> dict[str, Any]:
        """``results`` is all of it; the rest is there to be read by others."""
        winner = self.winner
        return {
            "corpus": self.corpus,
            "partial": self.partial,
            "primary": self.primary,
            "winner": winner.label if winner else None,
            "rows": [asdict(row) for row in self.rows],
            "results": [result.to_json() for result in self.results],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Leaderboard:
        return cls([Result.from_json(result) for result in data["results"]])

    def to_markdown(self) -> str:
        from llmembed.evaluation.tables import markdown

        return markdown(self)

    def __rich__(self) -> RenderableType:
        from llmembed.evaluation.tables import terminal

        return terminal(self)


def _key(label: str, settings: Mapping[str, Any]) -> str:
    return json.dumps([label, settings], sort_keys=True)


def _row_key(result: Result) -> str:
    return _key(result.label, result.settings)


def _valid_value(result: Result) -> float:
    value = result.valid_value()
    assert value is not None, "a sound result was scored on validation"
    return value
