"""Thresholds, coverage curves and temperature, by hand and against a brute search."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss

from llmembed.errors import UnsupportedError
from llmembed.evaluation import (
    apply_temperature,
    choose_threshold,
    coverage_curve,
    fit_temperature,
    withhold,
)
from llmembed.evaluation.confidence import reliability
from llmembed.heads import calibration

CONFIDENCE = np.array([0.9, 0.8, 0.8, 0.6, 0.5])
CORRECT = np.array([True, True, False, True, False])


def test_curve_by_hand_takes_equal_confidences_together():
    curve = coverage_curve(CONFIDENCE, CORRECT)
    assert curve.threshold == (0.9, 0.8, 0.6, 0.5)
    assert curve.coverage == pytest.approx((0.2, 0.6, 0.8, 1.0))
    assert curve.accuracy == pytest.approx((1.0, 2 / 3, 3 / 4, 3 / 5))


def test_threshold_of_the_greatest_coverage_that_keeps_the_precision():
    chosen = choose_threshold(CONFIDENCE, CORRECT, 0.7, min_answered=1)
    assert (chosen.value, chosen.coverage, chosen.precision) == pytest.approx((0.6, 0.8, 0.75))
    labels = withhold(np.array([3, 4, 5, 6, 7]), CONFIDENCE, chosen)
    assert labels.tolist() == [3, 4, 5, 6, -1]


def test_unattainable_precision_is_said_and_nothing_is_answered():
    chosen = choose_threshold(CONFIDENCE, CORRECT, 0.9, min_answered=2)
    assert not chosen.attainable
    assert chosen.precision == 0.75
    assert "0.7500" in chosen.reason
    assert withhold(np.arange(5), CONFIDENCE, chosen).tolist() == [-1] * 5


def test_too_few_validation_texts_are_said():
    chosen = choose_threshold(CONFIDENCE, CORRECT, 0.5)
    assert not chosen.attainable
    assert "5 validation texts" in chosen.reason


def test_threshold_against_a_brute_search():
    rng = np.random.default_rng(0)
    confidence = rng.random(500).round(2)
    correct = rng.random(500) < confidence
    chosen = choose_threshold(confidence, correct, 0.8)
    fits = [
        t
        for t in np.unique(confidence)
        if (confidence >= t).sum() >= 20 and correct[confidence >= t].mean() >= 0.8
    ]
    assert chosen.value == min(fits)


def test_thinned_curve_keeps_its_end():
    rng = np.random.default_rng(1)
    curve = coverage_curve(rng.random(5000), rng.random(5000) < 0.5)
    thin = curve.thinned()
    assert len(thin.coverage) <= 101
    assert (thin.coverage[-1], thin.accuracy[-1]) == (curve.coverage[-1], curve.accuracy[-1])


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).astype(np.float32)


def test_temperature_recovers_how_much_logits_were_sharpened():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20000, 4))
    labels = (softmax(logits).cumsum(axis=1) > rng.random((20000, 1))).argmax(axis=1)
    sharp = softmax(2.5 * logits)
    temperature = fit_temperature(sharp, labels, kind="single")
    assert temperature == pytest.approx(2.5, rel=0.05)
    calmed = apply_temperature(sharp, temperature, kind="single")
    assert np.allclose(calmed.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(calmed.argmax(axis=1), sharp.argmax(axis=1))
    right = calmed.argmax(axis=1) == labels
    gap = [reliability(part.max(axis=1).astype(float), right).ece for part in (sharp, calmed)]
    assert gap[1] < 0.02 < 0.2 < gap[0]
    losses = [
        log_loss(labels, apply_temperature(sharp, t, kind="single")) for t in (2.0, temperature, 3)
    ]
    assert losses[1] == min(losses)


def test_temperature_of_multi_labels():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20000, 2))
    labels = rng.random((20000, 2)) < 1 / (1 + np.exp(-logits))
    sharp = (1 / (1 + np.exp(-3 * logits))).astype(np.float32)
    temperature = fit_temperature(sharp, labels, kind="multi")
    assert temperature == pytest.approx(3, rel=0.05)
    true = 1 / (1 + np.exp(-logits))
    assert np.allclose(apply_temperature(sharp, 3.0, kind="multi"), true, atol=2e-3)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_logits_and_the_probabilities_made_of_them_have_one_temperature(kind):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3000, 4)) * 2
    if kind == "single":
        labels, scores = rng.permuted(logits.argmax(axis=1)), softmax(logits)
        labels[:2000] = logits[:2000].argmax(axis=1)
    else:
        scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
        labels = rng.random(logits.shape) < 1 / (1 + np.exp(-logits / 3))
    found = fit_temperature(scores, labels, kind=kind)
    assert 1.5 < found < 19
    assert calibration.fit_temperature(logits, labels, kind) == pytest.approx(found, rel=1e-3)


def test_no_scores_no_temperature():
    with pytest.raises(UnsupportedError, match="without scores"):
        fit_temperature(None, np.array([0]), kind="single")
