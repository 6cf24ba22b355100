"""One task answered only when sure: the threshold from validation, what test says of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmembed.contract import Prediction, Task
from llmembed.evaluation.confidence import confidence_and_correct
from llmembed.evaluation.coverage import choose_threshold, coverage_curve, precision_interval
from llmembed.evaluation.result import Selective

Answered = tuple[Any, Prediction]
"""Truth and what was answered."""


def answered_when_sure(
    task: Task,
    valid: Answered,
    test: Answered | None,
    wanted_precision: float,
    wanted_confidence: float,
) -> Selective:
    """The threshold that ``valid`` promises ``wanted_precision`` for, tried on ``test``."""
    threshold = choose_threshold(*_all_texts(task, *valid), wanted_precision, wanted_confidence)
    confidence, correct = _all_texts(task, *(test or valid))
    answered = confidence >= (np.inf if threshold.value is None else threshold.value)
    told = int(answered.sum()) if test else 0
    right = int(correct[answered].sum())
    return Selective(
        threshold=threshold,
        curve=coverage_curve(confidence, correct).thinned(),
        coverage=float(answered.mean()) if test else None,
        precision=right / told if told else None,
        interval=precision_interval(right, told, wanted_confidence) if told else None,
    )


def promise(selective: Selective) -> str:
    """What the threshold promises, and what test says of it, in a sentence without its stop."""
    threshold, interval = selective.threshold, selective.interval
    if threshold.value is None:
        return f"no threshold for `unknown`: {threshold.reason or 'unattainable on validation'}"
    said = f"`unknown` below {threshold.value:.4f}"
    if threshold.wanted_confidence is None:
        return (
            f"{said} had a precision of {threshold.wanted_precision:g} on the validation texts it "
            "was chosen on, which promises none elsewhere"
        )
    said += (
        f" promises a precision of {threshold.wanted_precision:g} with confidence "
        f"{threshold.wanted_confidence:g}"
    )
    if selective.coverage is None:
        return said
    said += f"; on test {100 * selective.coverage:.1f} % of the texts are answered"
    if selective.precision is None or interval is None:
        return said
    return said + (
        f", {selective.precision:.4f} of them right [{interval.low:.4f} {interval.high:.4f}]"
    )


def _all_texts(task: Task, truth: Any, prediction: Prediction) -> tuple[Any, Any]:
    """Confidence and correctness of every text; an unreadable answer has confidence 0."""
    read = (prediction.labels >= 0) & ~prediction.invalid
    confidence, correct = np.zeros(len(read)), np.zeros(len(read), dtype=bool)
    confidence[read], correct[read] = confidence_and_correct(task, truth, prediction)
    return confidence, correct
