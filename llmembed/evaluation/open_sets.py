"""A class of the texts that fit no class: what it does to the others is told apart."""

from __future__ import annotations

from dataclasses import replace

from llmembed.evaluation.metrics import Scores
from llmembed.evaluation.wording import fraction

IN_SCOPE, RECALL, PRECISION = "in_scope_accuracy", "other_recall", "other_precision"


def with_other(scores: Scores, other: str | None) -> Scores:
    """``scores`` of a ``single`` task with the figures of its class ``other`` among its metrics;
    as they are where it has no such class.

    ``in_scope_accuracy``: of the texts whose class is another one, those answered rightly;
    ``other`` for one of them is wrong. ``other_recall`` and ``other_precision``: of the texts of
    ``other`` those recognised, of the answers ``other`` those that are right. A share of no texts
    is left out.
    """
    names = [each.name for each in scores.per_class]
    if scores.kind != "single" or other not in names:
        return scores
    place = names.index(other)
    row, rest = scores.per_class[place], [e for e in scores.per_class if e.name != other]
    in_scope = sum(each.support for each in rest)
    found: dict[str, float] = {}
    if in_scope:
        found[IN_SCOPE] = sum(each.recall * each.support for each in rest) / in_scope
    if row.support:
        found[RECALL] = row.recall
    if scores.counted is not None and scores.counted.answered[place]:
        found[PRECISION] = row.precision
    return replace(scores, metrics={**scores.metrics, **found})


def told_of_other(scores: Scores) -> str | None:
    """In a sentence without its stop; None of scores without such a class."""
    if IN_SCOPE not in scores.metrics:
        return None
    said = f"of the texts in scope {fraction(scores.metrics[IN_SCOPE])} are answered rightly"
    if RECALL in scores.metrics:
        said += f"; of those out of scope {fraction(scores.metrics[RECALL])} are recognised"
    if PRECISION in scores.metrics:
        said += (
            f"; an answer that a text is out of scope is right in "
            f"{fraction(scores.metrics[PRECISION])}"
        )
    return said
