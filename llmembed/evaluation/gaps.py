"""Whether a figure on validation and the same on test differ by more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Any

from llmembed.evaluation.result import Result
from llmembed.evaluation.rows import Row

LEVEL = 0.01
"""A difference is beyond chance where chance makes one as large in at most this share of cases.
Strict, since a fit chooses on validation, too (a penalty, an epoch): the best of eight equally good
choices alone would be a false alarm in a twentieth of the cases at most."""
WORTH_SAYING = 0.01
"""Smaller differences are left unsaid, however sure a large corpus makes of them."""
SHARES_OF_TEXTS = ("accuracy", "subset_accuracy")
"""Metrics that are the share of the texts answered rightly."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """``metric`` of one task on validation and on test, means over seeds, and of how many texts.

    ``p``: how often chance makes a difference of this size or more, either way, in one of the
    ``comparisons`` (rows that could have won, times tasks): validation chose the best of these, so
    its figure is the luckiest of several. ``level``: up to which ``p`` they differ beyond chance.
    """

    task: str
    metric: str
    valid: float
    test: float
    valid_texts: int
    test_texts: int
    comparisons: int
    p: float
    level: float = LEVEL

    @property
    def beyond_chance(self) -> bool:
        return self.p <= self.level and abs(self.valid - self.test) >= WORTH_SAYING

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Gap:
        return cls(**data)


def gaps_of(row: Row, results: Sequence[Result], *, rivals: int) -> tuple[Gap, ...]:
    """One for each task of ``row``, whose sound results are ``results``, the best by validation
    of ``rivals`` rows; none without test.

    A share of texts is judged by the test for two proportions with Yates' correction, another
    metric by the width of its bootstrap interval on test, widened or narrowed to the number of
    validation texts, and never by less than a share of that size would vary. Seeds answer the same
    texts, so they count as one.
    """
    found = []
    first = results[0]
    for task, scores in first.test.items():
        valid, test = row.valid[task].mean, row.test[task].mean
        n_valid, n_test = first.valid[task].examples, scores.examples
        if not n_valid or not n_test:
            continue
        p = proportions_differ(valid, n_valid, test, n_test)
        if scores.primary not in SHARES_OF_TEXTS and task in row.interval:
            widths = [r.intervals[task].high - r.intervals[task].low for r in results]
            level = first.intervals[task].level
            error = fmean(widths) / (2 * NormalDist().inv_cdf((1 + level) / 2))
            both = error * math.sqrt(1 + n_test / n_valid)
            p = max(p, two_sided(abs(valid - test), both))
        comparisons = rivals * len(first.test)
        found.append(
            Gap(
                task=task,
                metric=scores.primary,
                valid=valid,
                test=test,
                valid_texts=n_valid,
                test_texts=n_test,
                comparisons=comparisons,
                p=min(1.0, p * comparisons),
            )
        )
    return tuple(found)


def proportions_differ(first: float, n: int, second: float, m: int) -> float:
    """Two-sided p of shares ``first`` of ``n`` and ``second`` of ``m`` under one share for both:
    pooled variance, Yates' correction (Fleiss et al., Statistical Methods for Rates and
    Proportions, 2003, 3.3), which keeps to the level on small samples, too."""
    pooled = min(max((first * n + second * m) / (n + m), 0.0), 1.0)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return two_sided(abs(first - second) - (1 / n + 1 / m) / 2, error)


def two_sided(difference: float, error: float) -> float:
    """How often chance makes ``difference`` or more, either way, where its standard deviation is
    ``error``; 1 of no difference."""
    if difference <= 0:
        return 1.0
    return math.erfc(difference / error / math.sqrt(2)) if error > 0 else 0.0
