"""All methods on one corpus, aggregated over seeds, and the one to deploy."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llmembed.errors import DataError
from llmembed.evaluation.disagreement import Disagreement
from llmembed.evaluation.paired import PAIRED, Comparison, Told, compare_paired
from llmembed.evaluation.result import Result
from llmembed.evaluation.rows import Row, row_of

if TYPE_CHECKING:
    from rich.console import RenderableType

TIE = 1e-12
"""Validation means closer than this are equal."""


class Leaderboard:
    """Rows of one corpus, best validation mean first, those that can't win last.

    ``disagreement``: what is to be said where the winner's validation and test disagree.

    Raises:
        DataError: the results are not all of the same corpus.
    """

    def __init__(
        self,
        results: Sequence[Result],
        disagreement: Disagreement | None = None,
        comparisons: Sequence[Comparison] | None = None,
    ) -> None:
        self.results = tuple(results)
        self.disagreement = disagreement
        self._comparisons = None if comparisons is None else tuple(comparisons)
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
        """The eligible row of the best validation mean less its standard error; among equals the
        one of least energy."""
        eligible = [row for row in self.rows if row.eligible]
        if not eligible:
            return None
        best = max(row.valid_bound for row in eligible)
        equal = [row for row in eligible if best - row.valid_bound <= TIE]
        return min(equal, key=lambda row: row.energy_kwh or 0.0)

    @property
    def winner_result(self) -> Result | None:
        """The winner's fit with the best validation mean: the one to register."""
        winner = self.winner
        return None if winner is None else max(self.results_of(winner), key=_valid_value)

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The winner against every other row that might have won, on texts left out of both;
        none where a task's metric is no share of texts answered right."""
        if self._comparisons is not None:
            return self._comparisons
        winner = self.winner
        if winner is None or not set(self.primary.values()) <= PAIRED:
            return ()
        ours = self._told(winner)
        found = []
        for row in self.rows:
            theirs = self._told(row)
            if row is winner or not row.eligible or ours is None or theirs is None:
                continue
            ratio = None
            if row.energy_kwh and winner.energy_kwh:
                ratio = winner.energy_kwh / row.energy_kwh
            compared = compare_paired(row.label, ours, theirs, energy_ratio=ratio)
            if compared is not None:
                found.append(compared)
        return tuple(found)

    def _told(self, row: Row) -> Told | None:
        return next((r.told for r in self.results_of(row) if r.told is not None), None)

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
            "comparisons": [asdict(each) for each in self.comparisons],
            "disagreement": self.disagreement and self.disagreement.to_json(),
            "rows": [asdict(row) for row in self.rows],
            "results": [result.to_json() for result in self.results],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Leaderboard:
        # A leaderboard stored by an earlier version has neither.
        found = data.get("disagreement")
        return cls(
            [Result.from_json(result) for result in data["results"]],
            found and Disagreement.from_json(found),
            [Comparison(**each) for each in data.get("comparisons", ())],
        )

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
