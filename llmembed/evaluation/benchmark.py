"""One method on one corpus: fit by seed, score on validation, read test once, say what it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from llmembed.contract import (
    Classifier,
    Examples,
    Method,
    Prediction,
    Reporter,
    Runtime,
    Silent,
    Task,
    Usage,
)
from llmembed.errors import LlmembedError, UnsupportedError
from llmembed.evaluation.bootstrap import bootstrap_interval
from llmembed.evaluation.calibration import apply_temperature, fit_temperature
from llmembed.evaluation.confidence import confidence_and_correct, reliability
from llmembed.evaluation.coverage import WANTED_CONFIDENCE
from llmembed.evaluation.latency import measure_latency
from llmembed.evaluation.metrics import Scores, score
from llmembed.evaluation.open_sets import with_other
from llmembed.evaluation.provenance import plain, settings_of, versions
from llmembed.evaluation.result import Calibration, Result, Status
from llmembed.evaluation.selective import Answered, answered_when_sure
from llmembed.metering import Meter, Prices

if TYPE_CHECKING:
    from llmembed.texts import Corpus

UNREADABLE = 0.9
"""The share of unreadable answers from which a fit counts as failed, as one that collapsed."""
OnFitted = Callable[[Result, Classifier], None]
"""Called with each result and its classifier, to save or register it."""


@runtime_checkable
class MeteredPrediction(Protocol):
    """A classifier that sends work to other processes also says what its last ``predict`` took,
    the workers' and cached embeddings' share included; else only this process is metered."""

    @property
    def predict_usage(self) -> Usage: ...


@runtime_checkable
class Asking(MeteredPrediction, Protocol):
    """A classifier whose answers cost by the text: those to validation texts, and those given until
    it failed, are in its row too."""

    @property
    def fit_reads_validation(self) -> bool: ...

    def until_failed(self) -> Usage: ...


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
        blank = _blank(fitted, corpus, seed)
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
                _scored(blank, classifier, corpus, runtime, (wanted_precision, wanted_confidence)),
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
        texts = (corpus.test or corpus.valid).texts
        latency, note = None, None
        if result.status != "incomplete":  # it may be waited for in vain
            latency, note = measure_latency(
                classifier, texts, budget_seconds=latency_budget_seconds
            )
        result = replace(
            result,
            cost_usd=prices.cost(result.usage),
            latency=latency,
            notes=(*result.notes, note) if note else result.notes,
        )
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


def _blank(method: Method, corpus: Corpus, seed: int) -> Result:
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


def _scored(
    blank: Result,
    classifier: Classifier,
    corpus: Corpus,
    runtime: Runtime,
    wanted: tuple[float, float],
) -> Result:
    on_valid = classifier.predict(corpus.valid.texts, runtime)
    complaints = tuple(getattr(classifier, "complaints", ()))
    asks = isinstance(classifier, Asking) and not classifier.fit_reads_validation
    valid_usage = classifier.predict_usage if asks else Usage()  # type: ignore[attr-defined]
    valid = _scores(corpus, corpus.valid, on_valid)
    test: dict[str, Scores] = {}
    on_test: Mapping[str, Prediction] | None = None
    usage = Usage()
    if corpus.test is not None:
        with Meter() as meter:
            on_test = classifier.predict(corpus.test.texts, runtime)
        metered = isinstance(classifier, MeteredPrediction)
        usage = classifier.predict_usage if metered else meter.usage  # type: ignore[attr-defined]
        test = _scores(corpus, corpus.test, on_test)
    told = tuple(getattr(classifier, "notes", ()))
    if test:
        told += tuple(f"on validation: {words}" for words in complaints)
        complaints += tuple(getattr(classifier, "complaints", ()))
    status, reason = _judged(valid, test, complaints)
    judged = corpus.valid if corpus.test is None else corpus.test
    answers = on_valid if on_test is None else on_test
    scored = [task for task in corpus.tasks if answers[task.name].scores is not None]
    return replace(
        blank,
        status=status,
        reason=reason,
        valid=valid,
        test=test,
        intervals={
            task.name: bootstrap_interval(task, judged.labels[task.name], answers[task.name])
            for task in corpus.tasks
        },
        selective={
            task.name: answered_when_sure(
                task,
                (corpus.valid.labels[task.name], on_valid[task.name]),
                None
                if corpus.test is None
                else (corpus.test.labels[task.name], answers[task.name]),
                *wanted,
            )
            for task in scored
            if task.kind == "single"
        },
        calibration={
            task.name: _calibration(
                task,
                (corpus.valid.labels[task.name], on_valid[task.name]),
                (judged.labels[task.name], answers[task.name]),
            )
            for task in scored
        },
        fit_usage=classifier.fit_usage,
        valid_usage=valid_usage,
        predict_usage=usage,
        parameters_trained=classifier.parameters_trained,
        chosen=plain(getattr(classifier, "chosen", {})),
        notes=told,
    )


def _judged(
    valid: Mapping[str, Scores], test: Mapping[str, Scores], complaints: Sequence[str]
) -> tuple[Status, str | None]:
    """Whether what was answered is to be believed; ``complaints``: what the asked model said."""
    said = f" ({complaints[0]})" if complaints else ""
    missing = [
        f"{max(s.unanswered for s in scores.values()):,} of "
        f"{max(s.examples for s in scores.values()):,} {part} questions got no answer"
        for part, scores in (("validation", valid), ("test", test))
        if any(s.unanswered for s in scores.values())
    ]
    if missing:
        return "incomplete", f"{' and '.join(missing)}{said}; the same command asks these again"
    unsound = [
        f"task {name!r} is answered {scores.collapsed!r} whatever the text"
        for name, scores in valid.items()
        if scores.collapsed is not None
    ]
    for name, scores in valid.items():
        unread, answers = scores.unreadable
        if unread and unread >= UNREADABLE * answers:
            unsound.append(
                f"{unread:,} of {answers:,} validation answers to task {name!r} could not be read"
                + said
            )
    return "failed" if unsound else "ok", "; ".join(unsound) or None


def _scores(
    corpus: Corpus, examples: Examples, predictions: Mapping[str, Prediction]
) -> dict[str, Scores]:
    for task in corpus.tasks:
        offsets = predictions[task.name].offsets
        if task.kind != "tokens":
            continue
        if offsets is None or not np.array_equal(offsets, examples.offsets):
            raise UnsupportedError(
                f"task {task.name!r}: the texts were answered in other words than those labelled; "
                f"a text of word labels must be its words joined by single spaces"
            )
    found = [score(t, examples.labels[t.name], predictions[t.name]) for t in corpus.tasks]
    return {scores.task: with_other(scores, corpus.other_label) for scores in found}


def _calibration(task: Task, valid: Answered, judged: Answered) -> Calibration:
    assert valid[1].scores is not None and judged[1].scores is not None
    temperature = fit_temperature(valid[1].scores, valid[0], kind=task.kind)
    softened = apply_temperature(judged[1].scores, temperature, kind=task.kind)

    def ece(prediction: Prediction) -> float:
        confidence, correct = confidence_and_correct(task, judged[0], prediction)
        assert confidence is not None
        return reliability(confidence, correct).ece

    return Calibration(
        temperature=temperature,
        ece_before=ece(judged[1]),
        ece_after=ece(replace(judged[1], scores=softened)),
    )
