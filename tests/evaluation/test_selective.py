"""Thresholds, coverage curves and temperature, by hand and against a brute search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import log_loss

from llmembed.contract import Prediction, Task
from llmembed.errors import UnsupportedError
from llmembed.evaluation import (
    Threshold,
    apply_temperature,
    choose_threshold,
    coverage_curve,
    fit_temperature,
    promise,
    withhold,
)
from llmembed.evaluation.confidence import reliability
from llmembed.evaluation.coverage import fewest_texts, lower_bound, precision_interval
from llmembed.evaluation.selective import answered_when_sure
from llmembed.heads import calibration

CONFIDENCE = np.array([0.9, 0.8, 0.8, 0.6, 0.5])
CORRECT = np.array([True, True, False, True, False])


def test_curve_by_hand_takes_equal_confidences_together():
    curve = coverage_curve(CONFIDENCE, CORRECT)
    assert curve.threshold == (0.9, 0.8, 0.6, 0.5)
    assert curve.coverage == pytest.approx((0.2, 0.6, 0.8, 1.0))
    assert curve.accuracy == pytest.approx((1.0, 2 / 3, 3 / 4, 3 / 5))


def test_bounds_and_fewest_texts_against_scipys_binomial_test():
    for right, n in ((297, 300), (19, 20), (59, 59), (0, 7)):
        one_sided = binomtest(right, n, alternative="greater").proportion_ci(0.95, "exact")
        assert lower_bound(right, n, 0.95) == pytest.approx(one_sided.low, abs=1e-9)
        both = binomtest(right, n).proportion_ci(0.9, "exact")
        got = precision_interval(right, n, 0.9)
        assert (got.low, got.high) == pytest.approx((both.low, both.high), abs=1e-9)
    # n right answers promise p where p ** n is at most 5 %: .95 ** 59 < .05 < .95 ** 58
    assert fewest_texts(0.95, 0.95) == 59
    assert fewest_texts(0.99, 0.95) == 299
    assert fewest_texts(0.5, 0.75) == 2  # exactly a fourth
    assert fewest_texts(1.0, 0.95) is None


def test_threshold_is_the_last_one_before_the_bound_falls_below_the_wanted_precision():
    # .5 can be promised with confidence .75 by 2 of 2, 3 of 3, 4 of 5 (6 of 32 chances), not by
    # 2 of 3 (4 of 8): here by the first 2, 3 and 5 texts, and no more by 4 of 7 (64 of 128).
    confidence = np.array([0.95, 0.9, 0.85, 0.8, 0.8, 0.6, 0.5])
    correct = np.array([True, True, True, True, False, False, False])
    chosen = choose_threshold(confidence, correct, 0.5, 0.75)
    assert (chosen.value, chosen.coverage, chosen.precision) == pytest.approx((0.8, 5 / 7, 4 / 5))
    assert chosen.lower_bound == pytest.approx(lower_bound(4, 5, 0.75))
    assert chosen.lower_bound >= 0.5
    labels = withhold(np.arange(3, 10), confidence, chosen)
    assert labels.tolist() == [3, 4, 5, 6, 7, -1, -1]


def test_what_can_not_be_promised_is_said_and_nothing_is_answered():
    chosen = choose_threshold(CONFIDENCE[::-1], np.zeros(5, dtype=bool), 0.5, 0.75)
    assert not chosen.attainable
    assert "no threshold promises a precision of 0.5 with confidence 0.75" in chosen.reason
    assert "of the 3 surest validation texts 0 are answered right" in chosen.reason
    assert withhold(np.arange(5), CONFIDENCE, chosen).tolist() == [-1] * 5


@pytest.mark.parametrize(("wanted", "sentence"), [(0.99, "at least 299"), (1.0, "precision of 1")])
def test_too_few_validation_texts_are_said(wanted, sentence):
    confidence = np.linspace(0.5, 1, 298)
    chosen = choose_threshold(confidence, np.ones(298, dtype=bool), wanted)
    assert not chosen.attainable
    assert sentence in chosen.reason


def test_the_promise_holds_of_a_calibrated_classifier():
    """The precision beyond the threshold is below the wanted one in 5 % of drawings at most; up to
    7 % leaves room for chance in 400 of them (three standard deviations are 3.3 %)."""
    rng = np.random.default_rng(0)

    def draw(n: int):
        confidence = np.clip(rng.beta(6, 0.67, size=n), 0, 1)
        return confidence, rng.random(n) < confidence

    surest = np.sort(draw(400_000)[0])[::-1]
    precision = np.cumsum(surest) / np.arange(1, len(surest) + 1)  # of a calibrated classifier
    attained = {}
    for n in (100, 500, 2000):
        chosen = [choose_threshold(*draw(n), 0.99) for _ in range(400)]
        values = np.array([each.value for each in chosen if each.attainable])
        true = precision[np.searchsorted(-surest, -values, side="right") - 1]
        assert (true < 0.99).sum() <= 0.07 * 400
        attained[n] = len(values)
    assert attained[100] == 0  # 299 answers are needed
    assert attained[2000] > 100  # and it is no promise that is never made


def first(prediction: Prediction, n: int) -> Prediction:
    return Prediction(
        labels=prediction.labels[:n], scores=prediction.scores[:n], invalid=prediction.invalid[:n]
    )


def test_what_a_threshold_promises_is_told():
    labels = np.zeros(400, dtype=np.int64)
    task = Task(name="topic", classes=("a", "b"))
    scores = np.column_stack([np.linspace(0.6, 1, 400), np.linspace(0.4, 0, 400)]).astype("f4")
    right = Prediction(labels=labels, scores=scores, invalid=np.zeros(400, dtype=bool))
    truth = labels.copy()
    truth[:40] = 1
    sure = answered_when_sure(task, (labels, right), (truth, right), 0.99, 0.95)
    # all 400 of validation are right; of test's 360 are
    interval = binomtest(360, 400).proportion_ci(0.95, "exact")
    assert promise(sure) == (
        "`unknown` below 0.6000 promises a precision of 0.99 with confidence 0.95; on test 100.0 % "
        f"of the texts are answered, 0.9000 of them right [{interval.low:.4f} {interval.high:.4f}]"
    )
    few = answered_when_sure(task, (labels[:50], first(right, 50)), None, 0.99, 0.95)
    assert promise(few).startswith("no threshold for `unknown`: 50 validation texts are too few")
    older = Threshold(wanted_precision=0.99, value=0.7, coverage=0.5, precision=0.991)
    assert "promises none elsewhere" in promise(replace(sure, threshold=older))


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
