"""Members answer together: how they are weighed, and what one pass over a text costs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from llmembed.cluster import LocalRuntime
from llmembed.contract import Examples, OverBackbones, Prediction, Silent, Task, Usage
from llmembed.errors import ConfigError, ModelError
from llmembed.experiment import Experiment
from llmembed.folds import Folds
from llmembed.methods import load, mean_of
from llmembed.methods.combined.weights import left_out_scores, quality, weigh
from llmembed.methods.settings import LeftOut
from llmembed.pipelines.methods import Assembler

TOPIC = Task(name="topic", classes=("grain", "trade", "ship"))
TAGS = Task(name="tags", classes=("grain", "trade", "ship"), kind="multi")
WORDS = ("wheat corn harvest", "tariffs exports deficit", "vessel cargo harbour")


def noisy(truth: np.ndarray, knows: float, seed: int) -> np.ndarray:
    """Probabilities (N, 3) of the truth's logit, ``knows``, and noise of deviation 1."""
    logits = np.random.default_rng(seed).normal(size=(len(truth), 3)) + knows * np.eye(3)[truth]
    odds = np.exp(logits)
    return np.asarray(odds / odds.sum(1, keepdims=True), dtype=np.float32)


def parts(count: int) -> list[np.ndarray]:
    return [np.arange(start, count, 5) for start in range(5)]


@pytest.mark.parametrize("how", ["greedy", "stacked"])
def test_who_knows_more_counts_more(how):
    truth = np.random.default_rng(0).integers(0, 3, 600)
    members = np.stack([noisy(truth, 1.5, 1), noisy(truth, 1.5, 2), noisy(truth, 0.0, 3)])
    weights = weigh(TOPIC, members, truth, how)
    assert weights.of_members[:2].min() > 2 * abs(weights.of_members[2])
    together = quality(TOPIC, weights.scores(members, "single"), truth)[0]
    alone = max(quality(TOPIC, member, truth)[0] for member in members)
    assert together > alone


@pytest.mark.parametrize("how", ["greedy", "stacked", "mean"])
def test_weights_are_judged_on_texts_that_did_not_choose_them(how):
    """Of many members that know nothing some combination always looks good where it was chosen."""
    found = []
    for seed in range(5):
        truth = np.random.default_rng(seed).integers(0, 3, 150)
        members = np.stack([noisy(truth, 0.0, 100 * seed + n) for n in range(12)])
        scores = left_out_scores(TOPIC, members, truth, how, parts(150))
        found.append(quality(TOPIC, scores, truth)[0])
    assert abs(np.mean(found) - 1 / 3) < 0.06


@pytest.mark.parametrize("how", ["greedy", "stacked", "mean"])
def test_several_labels_a_text(how):
    rng = np.random.default_rng(0)
    truth = rng.random((400, 3)) < 0.3
    members = np.stack(
        [np.clip(truth * 0.6 + rng.normal(0.2, 0.25, truth.shape), 0.01, 0.99) for _ in range(3)]
    ).astype(np.float32)
    weights = weigh(TAGS, members, truth, how)
    scores = weights.scores(members, "multi")
    assert scores.min() >= 0
    assert scores.max() <= 1
    alone = max(quality(TAGS, member, truth)[0] for member in members)
    assert quality(TAGS, scores, truth)[0] > alone


def examples(count: int, seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, 3, count)
    texts = [
        f"{' '.join(rng.choice(WORDS[c].split(), 2))} number {n} of {seed}"
        for n, c in enumerate(topic)
    ]
    return Examples(texts=texts, labels={"topic": topic, "tags": np.eye(3, dtype=bool)[topic]})


METHODS = {
    "lexical": {"kind": "lexical"},
    "probe": {"kind": "probe"},
    "last": {"kind": "fused", "fusion": "last", "head": {"epochs": 5}},
    "kernel": {"kind": "kernel", "penalties": [0.1]},
    "together": {"kind": "ensemble", "of": ["lexical", "probe", "last", "kernel"]},
}
TASKS = (TOPIC, TAGS)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """The members by folds, two seeds of ``last``, and the ensemble of all."""
    experiment = Experiment.model_validate({"methods": METHODS})
    assembler = Assembler(experiment)
    assert assembler.order()[-1] == "together"
    data = examples(90, 0)
    held = tuple(np.arange(start, 90, 3) for start in range(3))
    folds = Folds(examples=data, held=held)
    with LocalRuntime(tmp_path_factory.mktemp("files")) as runtime:
        for name in METHODS:
            seeds = (0, 1) if name == "last" else (0,)
            found = assembler.method(name).cross_fit(TASKS, folds, runtime, Silent(), seeds=seeds)
            assert len(found.classifiers) == len(seeds)
            for seed, classifier in zip(seeds, found.classifiers, strict=True):
                assembler.keep(name, seed, classifier)
            left_out = LeftOut(rows=folds.rows, answers=found.left_out, shared=found.shared)
            assembler.keep_left_out(name, left_out)
        yield found.classifiers[0], runtime, assembler, folds


def test_it_answers_better_than_chance_and_says_who_counts(fitted):
    classifier, runtime, _, _ = fitted
    test = examples(40, 7)
    answers = classifier.predict(test.texts, runtime)
    assert (answers["topic"].labels == test.labels["topic"]).mean() > 0.9
    assert (answers["tags"].labels == test.labels["tags"]).mean() > 0.9
    chosen = classifier.chosen["topic"]
    assert set(chosen["weights"]) == {"lexical", "probe", "last", "kernel"}
    assert chosen["how"] in ("greedy", "stacked")


def test_one_pass_over_a_text_however_many_members(fitted):
    _, runtime, assembler, _ = fitted
    probe = assembler.fits("probe", "test")()[0]
    last = list(assembler.fits("last", "test")().values())
    both = mean_of("both", [probe, *last], Usage())
    texts = examples(12, 8).texts
    probe.predict(texts)
    both.predict(texts)
    assert both.predict_usage.tokens == probe.predict_usage.tokens > 0
    assert isinstance(both, OverBackbones)
    views, _ = both.reader.read(texts, runtime)
    assert set(views) == set(both.backbones)
    given = both.predict_views(views, texts)["topic"].scores
    np.testing.assert_array_equal(given, both.predict(texts, runtime)["topic"].scores)
    expected = np.mean([each.predict(texts, runtime)["topic"].scores for each in (probe, *last)], 0)
    np.testing.assert_allclose(given, expected, atol=1e-5)


def test_the_pass_over_the_texts_counts_once_in_what_it_took(fitted):
    _, _, assembler, _ = fitted
    probe = assembler.fits("probe", "test")()[0]
    together = fitted[0]
    assert together.fit_usage.tokens == probe.fit_usage.tokens
    last = [*assembler.fits("last", "test")().values()]
    shared = assembler._left_out["last"].shared
    mean = mean_of("last", last, shared)
    own = [each.fit_usage.core_seconds - shared.core_seconds for each in last]
    assert min(own) > 0
    assert mean.fit_usage.core_seconds == pytest.approx(shared.core_seconds + sum(own))
    assert mean.fit_usage.tokens == probe.fit_usage.tokens


def test_saved_and_loaded_it_answers_the_same(fitted, tmp_path):
    classifier, runtime, _, _ = fitted
    classifier.save(tmp_path / "saved")
    kinds = {path.suffix for path in (tmp_path / "saved").rglob("*") if path.is_file()}
    assert kinds <= {".json", ".safetensors"}
    loaded = load(tmp_path / "saved")
    texts = examples(20, 9).texts
    for task in ("topic", "tags"):
        np.testing.assert_allclose(
            loaded.predict(texts, runtime)[task].scores,
            classifier.predict(texts, runtime)[task].scores,
            atol=1e-6,
        )
    assert loaded.fit_usage == classifier.fit_usage


def test_members_that_do_not_belong_are_refused(fitted, tmp_path):
    classifier = fitted[0]
    inner = mean_of("inner", [classifier], Usage())
    with pytest.raises(ModelError, match="an ensemble itself"):
        inner.save(tmp_path / "nested")
        load(tmp_path / "nested")
    classifier.save(tmp_path / "saved")
    path = tmp_path / "saved" / "classifier.json"
    manifest = json.loads(path.read_text())
    manifest["settings"]["weights"]["topic"]["of_members"].append(0.5)
    path.write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="do not fit"):
        load(tmp_path / "saved")


def test_a_member_that_was_asked_about_fewer_texts_is_weighed_on_these(fitted):
    _, runtime, assembler, folds = fitted
    source = assembler._left_out["lexical"]
    part = folds.rows[60:]
    few = {
        task: Prediction(
            labels=answer.labels[60:], scores=answer.scores[60:], invalid=answer.invalid[60:]
        )
        for task, answer in source.answers.items()
    }
    assembler._left_out["lexical"] = LeftOut(rows=part, answers=few, shared=source.shared)
    try:
        found = assembler.method("together").cross_fit(TASKS, folds, runtime, Silent())
    finally:
        assembler._left_out["lexical"] = source
    np.testing.assert_array_equal(found.rows, part)
    assert len(found.left_out["topic"].labels) == len(part)


def test_without_any_member_it_says_so(fitted):
    _, runtime, _, folds = fitted
    fresh = Assembler(Experiment.model_validate({"methods": METHODS}))
    with pytest.raises(ConfigError, match="none of its members"):
        fresh.method("together").cross_fit(TASKS, folds, runtime, Silent())
