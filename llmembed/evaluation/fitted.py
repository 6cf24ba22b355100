"""What a fit is scored on: its answers to validation texts, or those of fits that left them out;
and test, read once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from llmembed.contract import Classifier, Examples, Prediction, Runtime, Task, Usage
from llmembed.errors import LlmembedError, UnsupportedError
from llmembed.evaluation.bootstrap import bootstrap_interval, standard_error
from llmembed.evaluation.calibration import apply_temperature, fit_temperature
from llmembed.evaluation.confidence import confidence_and_correct, reliability
from llmembed.evaluation.latency import measure_latency
from llmembed.evaluation.metrics import Scores, score
from llmembed.evaluation.open_sets import with_other
from llmembed.evaluation.paired import Told, all_right
from llmembed.evaluation.provenance import plain
from llmembed.evaluation.result import Calibration, Result, Status
from llmembed.evaluation.selective import Answered, answered_when_sure
from llmembed.metering import Meter, Prices

if TYPE_CHECKING:
    from llmembed.texts import Corpus

UNREADABLE = 0.9
"""The share of unreadable answers from which a fit counts as failed, as one that collapsed."""
OnAnswered = Callable[[Mapping[str, Prediction]], None]
"""Called with the answers to the validation texts, by task."""
LeftOut = tuple[Examples, Mapping[str, Prediction]]
"""Labelled texts, and what fits that had not seen them answered."""


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


def evaluate_fitted(
    blank: Result,
    classifier: Classifier,
    corpus: Corpus,
    runtime: Runtime,
    *,
    left_out: LeftOut,
    rows: npt.NDArray[np.int64],
    prices: Prices,
    wanted: tuple[float, float],
    latency_budget_seconds: float = 30.0,
) -> Result:
    """``blank`` with the scores of ``classifier``, validation's being those of ``left_out``, whose
    texts are ``rows`` of train and validation together."""
    try:
        result = scored(blank, classifier, corpus, runtime, wanted, left_out, rows)
    except LlmembedError as error:
        usage = classifier.fit_usage
        return replace(
            blank,
            status="failed",
            reason=str(error),
            fit_usage=usage,
            cost_usd=prices.cost(usage),
        )
    return priced(result, classifier, corpus, prices, latency_budget_seconds)


def priced(
    result: Result,
    classifier: Classifier,
    corpus: Corpus,
    prices: Prices,
    latency_budget_seconds: float,
) -> Result:
    """With its cost and latency."""
    latency, note = None, None
    if result.status != "incomplete":  # it may be waited for in vain
        latency, note = measure_latency(
            classifier,
            (corpus.test or corpus.valid).texts,
            budget_seconds=latency_budget_seconds,
        )
    return replace(
        result,
        cost_usd=prices.cost(result.usage),
        latency=latency,
        notes=(*result.notes, note) if note else result.notes,
    )


def scored(
    blank: Result,
    classifier: Classifier,
    corpus: Corpus,
    runtime: Runtime,
    wanted: tuple[float, float],
    left_out: LeftOut | None = None,
    rows: npt.NDArray[np.int64] | None = None,
    on_valid: OnAnswered | None = None,
) -> Result:
    if left_out is None:
        held: Examples = corpus.valid
        answered: Mapping[str, Prediction] = classifier.predict(held.texts, runtime)
    else:
        held, answered = left_out
    if on_valid:
        on_valid(answered)
    complaints = tuple(getattr(classifier, "complaints", ()))
    asks = isinstance(classifier, Asking) and not classifier.fit_reads_validation
    valid_usage = classifier.predict_usage if asks else Usage()  # type: ignore[attr-defined]
    valid = _scores(corpus, held, answered)
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
    judged = held if corpus.test is None else corpus.test
    answers = answered if on_test is None else on_test
    scored = [task for task in corpus.tasks if answers[task.name].scores is not None]
    return replace(
        blank,
        status=status,
        reason=reason,
        valid=valid,
        test=test,
        told=Told(
            rows=np.arange(len(held)) + len(corpus.train) if rows is None else rows,
            right=all_right(corpus.tasks, held.labels, answered),
        ),
        valid_errors={
            task.name: standard_error(task, held.labels[task.name], answered[task.name])
            for task in corpus.tasks
        },
        intervals={
            task.name: bootstrap_interval(task, judged.labels[task.name], answers[task.name])
            for task in corpus.tasks
        },
        selective={
            task.name: answered_when_sure(
                task,
                (held.labels[task.name], answered[task.name]),
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
                (held.labels[task.name], answered[task.name]),
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
