"""Real small methods fitted on a small made-up corpus, through the whole of ``evaluate``."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from small_corpora import made_up
from small_methods import FitWordVotes, Majority, WordVotes

from llmembed.contract import Prediction, Task, Usage
from llmembed.errors import WorkerError
from llmembed.evaluation import (
    Result,
    apply_temperature,
    evaluate,
    fit_temperature,
    measure_latency,
    score,
)
from llmembed.metering import Prices


@pytest.fixture(scope="module")
def corpus():
    return made_up(seed=0)


@pytest.fixture(scope="module")
def results(corpus):
    return evaluate(FitWordVotes(), corpus, None, seeds=(0, 1, 2), wanted_precision=0.8)


def test_each_seed_is_fitted_and_scored(results, corpus):
    assert [(r.status, r.seed, r.label) for r in results] == [
        ("ok", seed, "word-votes 0.6") for seed in (0, 1, 2)
    ]
    for result in results:
        assert 0.6 < result.test["topic"].value < 1
        assert result.test["topic"].examples == len(corpus.test)
        assert result.valid["topic"].examples == len(corpus.valid)
        interval = result.intervals["topic"]
        assert interval.low < result.test["topic"].value < interval.high
        assert result.settings == {"share": 0.6}
        assert result.chosen == {"smoothing": 1.0}
        assert result.digest == corpus.digest
        assert result.versions["numpy"] == np.__version__
    values = {result.test["topic"].value for result in results}
    assert len(values) > 1  # the seed reached the method


def test_what_it_took(results):
    for result in results:
        assert result.fit_usage.tokens > 0
        assert result.predict_usage.seconds > 0
        assert result.usage.energy_joules > 0
        assert result.cost_usd == pytest.approx(Prices().cost(result.usage))
        assert result.parameters_trained > 100
        assert 0 < result.latency.p50_seconds <= result.latency.p99_seconds
        assert result.latency.texts == 50


def test_threshold_comes_from_validation_and_is_tried_on_test(results, corpus):
    selective = results[0].selective["topic"]
    assert selective.threshold.wanted_precision == 0.8
    assert selective.threshold.wanted_confidence == 0.95
    assert selective.threshold.attainable
    assert selective.threshold.precision > selective.threshold.lower_bound >= 0.8
    assert selective.interval.low < selective.precision < selective.interval.high
    assert 0 < selective.coverage <= 1
    # validation's coverage is a multiple of 1 / its number of texts
    share = selective.threshold.coverage * len(corpus.valid)
    assert share == pytest.approx(round(share))


def test_temperature_is_fitted_on_validation_and_judged_on_test(corpus):
    fitted = []
    result = evaluate(
        FitWordVotes(), corpus, None, seeds=[0], on_fitted=lambda _, made: fitted.append(made)
    )[0]
    calibration = result.calibration["topic"]
    task = corpus.tasks[0]
    valid, test = (fitted[0].predict(part.texts)["topic"] for part in (corpus.valid, corpus.test))
    truth = corpus.valid.labels["topic"]
    assert calibration.temperature == fit_temperature(valid.scores, truth, kind="single")
    softened = apply_temperature(test.scores, calibration.temperature, kind="single")
    after = score(task, corpus.test.labels["topic"], replace(test, scores=softened))
    assert calibration.ece_before == result.test["topic"].metrics["ece"]
    assert calibration.ece_after == after.metrics["ece"] != calibration.ece_before


def test_results_survive_json(results):
    for result in results:
        assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_selection_never_reads_test(corpus):
    """With all test labels wrong, everything chosen stays the same."""
    test = replace(corpus.test, labels={"topic": (corpus.test.labels["topic"] + 1) % 4})
    one = evaluate(FitWordVotes(), corpus, None, seeds=[0])[0]
    other = evaluate(FitWordVotes(), replace(corpus, test=test), None, seeds=[0])[0]
    assert one.test["topic"].value > other.test["topic"].value
    assert one.selective["topic"].threshold == other.selective["topic"].threshold
    assert one.calibration["topic"].temperature == other.calibration["topic"].temperature
    assert one.valid == other.valid


def test_a_collapsed_fit_fails_with_its_scores_and_a_deterministic_one_runs_once(corpus):
    results = evaluate(Majority(), corpus, None, seeds=(0, 1, 2))
    assert len(results) == 1
    assert results[0].status == "failed"
    assert "'topic' is answered 'sport' whatever the text" in results[0].reason
    share = (corpus.test.labels["topic"] == 0).mean()
    assert results[0].test["topic"].value == pytest.approx(share)


def test_an_unsupported_task_fails_with_its_reason(corpus):
    tasks = (Task(name="topic", classes=corpus.tasks[0].classes, kind="multi"),)
    result = evaluate(FitWordVotes(), replace(corpus, tasks=tasks), None, seeds=[0])[0]
    assert (result.status, result.reason) == ("failed", "word-votes answers one label a text")
    assert result.valid == {} and result.latency is None


def test_a_lost_worker_fails_one_seed_and_the_rest_goes_on(corpus):
    class Fragile(FitWordVotes):
        def fit(self, *arguments):
            if self.seed == 1:
                raise WorkerError("actor 3 was killed")
            return super().fit(*arguments)

    results = evaluate(Fragile(), corpus, None, seeds=(0, 1, 2))
    assert [result.status for result in results] == ["ok", "failed", "ok"]
    assert results[1].reason == "actor 3 was killed"


def test_a_mistake_in_code_is_not_swallowed(corpus):
    class Wrong(FitWordVotes):
        def fit(self, *arguments):
            raise TypeError("a bug")

    with pytest.raises(TypeError, match="a bug"):
        evaluate(Wrong(), corpus, None, seeds=[0])


def test_time_limit_starts_no_further_fit_and_says_so(corpus):
    class Slow(FitWordVotes):
        def fit(self, *arguments):
            time.sleep(1.2)
            return super().fit(*arguments)

    results = evaluate(Slow(), corpus, None, seeds=(0, 1), time_limit_seconds=1.0)
    assert [result.status for result in results] == ["ok", "skipped"]
    assert "time limit of 1 s" in results[1].reason


def test_usage_of_workers_is_taken_from_a_classifier_that_knows_it(corpus):
    class Metered(WordVotes):
        @property
        def predict_usage(self) -> Usage:
            return Usage(seconds=99.0, tokens=7)

    class FitMetered(FitWordVotes):
        def fit(self, *arguments):
            fitted = super().fit(*arguments)
            return Metered(**{name: getattr(fitted, name) for name in fitted.__dict__})

    result = evaluate(FitMetered(), corpus, None, seeds=[0])[0]
    assert result.predict_usage == Usage(seconds=99.0, tokens=7)
    assert result.tokens == result.fit_usage.tokens + 7


def test_fitted_classifiers_and_reporters_are_handed_out(corpus):
    reported, fitted = [], []

    class Reporter:
        def report(self, metrics, *, step):
            reported.append((metrics, step))

    evaluate(
        FitWordVotes(),
        corpus,
        None,
        seeds=[5],
        reporter_factory=lambda method, seed: Reporter(),
        on_fitted=lambda result, classifier: fitted.append((result.seed, classifier.method)),
    )
    assert fitted == [(5, "word-votes")]
    assert len(reported) == 1


def test_a_corpus_without_test_is_judged_on_validation(corpus):
    result = evaluate(FitWordVotes(), replace(corpus, test=None), None, seeds=[0])[0]
    assert result.test == {} and result.predict_usage == Usage()
    assert result.intervals["topic"].low < result.valid["topic"].value
    assert result.selective["topic"].coverage is None
    assert result.latency is not None


class Sleepy:
    def predict(self, texts, runtime=None) -> dict[str, Prediction]:
        time.sleep(0.02)
        return {}


def test_latency_is_that_of_one_text():
    latency, note = measure_latency(Sleepy(), ["a"] * 30)
    assert 0.02 <= latency.p50_seconds < 0.2
    assert latency.texts == 30 and note is None


def test_latency_within_a_budget_says_what_it_left_out():
    latency, note = measure_latency(Sleepy(), ["a"] * 200, budget_seconds=0.6)
    assert 10 <= latency.texts < 50
    assert f"over {latency.texts} of 50 texts" in note
    latency, note = measure_latency(Sleepy(), ["a"] * 200, budget_seconds=0.1)
    assert latency is None and "not measured" in note


def test_latency_of_a_model_without_room_here_is_left_out_and_ends_nothing():
    class Huge(Sleepy):
        memory_bytes = 2**60

    latency, note = measure_latency(Huge(), ["a"] * 30)
    assert latency is None and "the model takes 1073741824.0 GiB" in note

    class Greedy(Sleepy):
        def predict(self, texts, runtime=None):
            return np.ones((2**24, 2**24))

    latency, note = measure_latency(Greedy(), ["a"] * 30)
    assert latency is None and "out of memory" in note

    class Broken(Sleepy):
        def predict(self, texts, runtime=None):
            raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="ours"):
        measure_latency(Broken(), ["a"] * 30)
