"""One method on one corpus: fit by seed, score on validation, read test once, say what it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from llmembed.contract import (
    Classifier,
    Method,
    Reporter,
    Runtime,
    Silent,
)
from llmembed.errors import LlmembedError
from llmembed.evaluation.coverage import WANTED_CONFIDENCE
from llmembed.evaluation.fitted import Asking, OnAnswered, priced, scored
from llmembed.evaluation.provenance import settings_of, versions
from llmembed.evaluation.result import Result
from llmembed.metering import Meter, Prices

if TYPE_CHECKING:
    from llmembed.texts import Corpus

OnFitted = Callable[[Result, Classifier], None]
"""Called with each result and its classifier, to save or register it."""


def evaluate(
    method: Method,
    corpus: Corpus,
    runtime: Runtime,
    *,
    seeds: Sequence[int],
    reporter_factory: Callable[[Method, int], Reporter] | None = None,
    prices: Prices | None = None,
    wanted_precision: float = 0.99,
    wanted_confidence: float = WANTED_CONFIDENCE,
    time_limit_seconds: float | None = None,
    latency_budget_seconds: float = 30.0,
    on_fitted: OnFitted | None = None,
    on_valid: OnAnswered | None = None,
) -> list[Result]:
    """Fit ``method`` once for each seed and score it; one result a fit.

    Selection never reads test: thresholds and temperature come from validation, and test is
    predicted once by each fitted classifier. A method that can't do the task, collapses, can't be
    read or loses its workers for good gives a failed result with its reason, and the rest goes on;
    one that was left without some answers gives an incomplete one. A
    deterministic method is fitted once. When ``time_limit_seconds`` are spent no further fit is
    started, and what is left is recorded as skipped (one already running is not cut short).
    """
    prices = prices or Prices()
    started = time.monotonic()
    results: list[Result] = []
    for seed in seeds[:1] if getattr(method, "deterministic", False) else seeds:
        fitted = seeded(method, seed)
        blank = blank_result(fitted, corpus, seed)
        if time_limit_seconds is not None and time.monotonic() - started > time_limit_seconds:
            reason = f"not started: the time limit of {time_limit_seconds:g} s was spent"
            results.append(replace(blank, status="skipped", reason=reason))
            continue
        reporter = reporter_factory(fitted, seed) if reporter_factory else Silent()
        meter = Meter()
        classifier: Classifier | None = None
        try:
            with meter:
                classifier = fitted.fit(corpus.tasks, corpus.train, corpus.valid, runtime, reporter)
            wall_seconds = meter.usage.seconds
            result = replace(
                scored(
                    blank,
                    classifier,
                    corpus,
                    runtime,
                    (wanted_precision, wanted_confidence),
                    on_valid=on_valid,
                ),
                wall_seconds=wall_seconds,
            )
        except LlmembedError as error:
            usage = meter.usage
            if isinstance(classifier, Asking):
                usage = classifier.fit_usage + classifier.until_failed()
            reason = str(error)
            if getattr(classifier, "kept_runs", ()):
                reason += "; what was trained is kept, and the same command goes on from there"
            results.append(
                replace(
                    blank,
                    status="failed",
                    reason=reason,
                    fit_usage=usage,
                    cost_usd=prices.cost(usage),
                    wall_seconds=usage.seconds,
                )
            )
            continue
        result = priced(result, classifier, corpus, prices, latency_budget_seconds)
        results.append(result)
        if on_fitted:
            on_fitted(result, classifier)
    return results


def seeded(method: Method, seed: int) -> Method:
    """``method`` with that seed: by its own ``seeded``, or its ``seed`` field where it has one."""
    if hasattr(method, "seeded"):
        with_seed: Method = method.seeded(seed)
        return with_seed
    if is_dataclass(method) and "seed" in {item.name for item in fields(method)}:
        return replace(method, seed=seed)
    return method


def blank_result(method: Method, corpus: Corpus, seed: int) -> Result:
    """A result that knows what is tried, and nothing of how it went."""
    return Result(
        method=method.name,
        label=str(getattr(method, "label", method.name)),
        settings=settings_of(method),
        seed=seed,
        corpus=corpus.name,
        digest=corpus.digest,
        partial=corpus.partial,
        machinery_only=bool(getattr(method, "machinery_only", False)),
        deterministic=bool(getattr(method, "deterministic", False)),
        versions=versions(),
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )
