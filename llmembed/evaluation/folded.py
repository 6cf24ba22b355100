"""One method by folds: what counts as validation are answers to texts left out of the fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmembed.contract import (
    Method,
    Reporter,
    Runtime,
    Silent,
)
from llmembed.errors import LlmembedError
from llmembed.evaluation.benchmark import blank_result, seeded
from llmembed.evaluation.coverage import WANTED_CONFIDENCE
from llmembed.evaluation.fitted import evaluate_fitted
from llmembed.evaluation.result import Result
from llmembed.folds import CrossFits, CrossFitted, Folds
from llmembed.metering import Meter, Prices

if TYPE_CHECKING:
    from llmembed.texts import Corpus


def evaluate_folded(
    method: Method,
    corpus: Corpus,
    folds: Folds,
    runtime: Runtime,
    *,
    seeds: Sequence[int],
    reporter: Reporter | None = None,
    prices: Prices | None = None,
    wanted_precision: float = 0.99,
    wanted_confidence: float = WANTED_CONFIDENCE,
    latency_budget_seconds: float = 30.0,
) -> tuple[list[Result], CrossFitted | None]:
    """As ``evaluate``, of a method that ``CrossFits``: what counts as validation are the answers to
    texts that are left out, over all ``folds`` and of all seeds together, and what answers test was
    fitted on all of them. Also what was fitted, if it was."""
    assert isinstance(method, CrossFits)
    prices = prices or Prices()
    if getattr(method, "deterministic", False):
        seeds = seeds[:1]
    blanks = [
        replace(blank_result(seeded(method, s), corpus, s), folds=len(folds.held)) for s in seeds
    ]
    results: list[Result] = []
    with Meter() as meter:
        try:
            found = method.cross_fit(
                corpus.tasks, folds, runtime, reporter or Silent(), seeds=seeds
            )
        except LlmembedError as error:
            failed = str(error)
            found = None
    if found is None:
        usage = meter.usage
        told: dict[str, Any] = {"reason": failed, "fit_usage": usage, "wall_seconds": usage.seconds}
        told["cost_usd"] = prices.cost(usage)
        return [replace(blank, status="failed", **told) for blank in blanks], None
    rows = folds.rows if found.rows is None else found.rows
    held = folds.examples.select(rows)
    if found.rows is not None and len(found.rows) < len(folds.rows):
        blanks = [replace(blank, folds=1) for blank in blanks]  # of fewer texts than the folds'
    for blank, classifier in zip(blanks, found.classifiers, strict=True):
        scored = evaluate_fitted(
            replace(blank, wall_seconds=meter.usage.seconds / len(blanks)),
            classifier,
            corpus,
            runtime,
            left_out=(held, found.left_out),
            rows=rows,
            prices=prices,
            wanted=(wanted_precision, wanted_confidence),
            latency_budget_seconds=latency_budget_seconds,
        )
        results.append(scored)
    return results, found
