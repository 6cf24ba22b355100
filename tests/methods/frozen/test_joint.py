"""The joint kernel: what it chooses, what it knows of texts left out, what it saves."""

from __future__ import annotations

import numpy as np
import pytest

from llmembed.contract import Task
from llmembed.heads.ridge import Split
from llmembed.methods.frozen.joint import Joint
from llmembed.methods.frozen.joint_fit import JointFit, fit_joint

N = 240
WORDS = ("alpha", "beta", "gamma")
TASKS = (
    Task(name="topic", classes=("a", "b", "c")),
    Task(name="tags", classes=("a", "b", "c"), kind="multi"),
)


def made(*, by_words: bool, by_features: bool, seed: int = 0):
    """Labels that follow from the words, from the features, from both or from nothing."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, 3, N)
    texts = [
        " ".join([*([WORDS[c]] if by_words else []), *(f"w{n}" for n in rng.integers(40, size=6))])
        for c in topic
    ]
    features = rng.normal(size=(N, 12)).astype(np.float32)
    if by_features:
        features[:, :3] += 3 * np.eye(3)[topic]
    tags = np.eye(3, dtype=bool)[topic] | (rng.random((N, 3)) < 0.1)
    return features, texts, {"topic": topic, "tags": tags}


def five(seed: int = 0):
    parts = np.array_split(np.random.default_rng(seed).permutation(N), 5)
    return [Split(fitted=np.setdiff1d(np.arange(N), p), held=np.sort(p)) for p in parts]


def accuracy(fitted, labels):
    return float((fitted.left_out["topic"].argmax(1) == labels["topic"]).mean())


@pytest.mark.parametrize(
    ("by_words", "by_features", "shares"),
    [(True, False, {0.25, 0.5}), (False, True, {0.0, 0.25})],
)
def test_the_share_of_terms_is_where_the_labels_come_from(by_words, by_features, shares):
    features, texts, labels = made(by_words=by_words, by_features=by_features)
    fitted = fit_joint(TASKS, features, texts, labels, five(), JointFit(), refit=True)
    assert fitted.chosen["topic"]["share_of_terms"] in shares
    assert accuracy(fitted, labels) > 0.85


@pytest.mark.parametrize("settings", [JointFit(), JointFit(exact_up_to=50, landmarks=100)])
def test_nothing_of_a_text_left_out_is_known(settings):
    """Of labels drawn by lot the fit knows those it saw, and of the others nothing."""
    found = []
    for seed in range(4):
        features, texts, labels = made(by_words=False, by_features=False, seed=seed)
        fitted = fit_joint(TASKS, features, texts, labels, five(seed), settings, refit=True)
        found.append(accuracy(fitted, labels))
    # Chosen as the best of several penalties on these texts, so a little above one in three.
    assert np.mean(found) < 0.42


def test_landmarks_and_the_whole_agree():
    features, texts, labels = made(by_words=True, by_features=True)
    whole = fit_joint(TASKS, features, texts, labels, five(), JointFit(), refit=True)
    part = fit_joint(
        TASKS, features, texts, labels, five(), JointFit(exact_up_to=50, landmarks=120), refit=True
    )
    assert part.joint.landmarks.shape == (120, 12)
    assert abs(accuracy(whole, labels) - accuracy(part, labels)) < 0.05


def test_one_split_without_refit_leaves_its_rows_unseen():
    features, texts, labels = made(by_words=False, by_features=True)
    split = five()[0]
    for settings in (JointFit(word_ngrams=0, char_ngrams=None), JointFit(exact_up_to=50)):
        fitted = fit_joint(TASKS, features, texts, labels, [split], settings, refit=False)
        assert np.isnan(fitted.left_out["topic"][split.fitted]).all()
        # The classifier is the fit that answered them.
        again = fitted.joint.scores(features[split.held], [texts[row] for row in split.held])
        np.testing.assert_allclose(again["topic"], fitted.left_out["topic"][split.held], atol=2e-2)


@pytest.mark.parametrize("kernel", ["rbf", "arc_cosine", "linear"])
def test_parts_make_the_same_again(kernel):
    features, texts, labels = made(by_words=True, by_features=True)
    joint = fit_joint(
        TASKS, features, texts, labels, five(), JointFit(kernel=kernel), refit=True
    ).joint
    settings, arrays = joint.to_parts()
    terms = None if joint.terms is None else joint.terms.to_json()
    again = Joint.from_parts(TASKS, settings, arrays, terms)
    for task in TASKS:
        np.testing.assert_array_equal(
            joint.scores(features, texts)[task.name], again.scores(features, texts)[task.name]
        )


def test_parts_that_do_not_belong_together_are_refused():
    features, texts, labels = made(by_words=True, by_features=True)
    joint = fit_joint(TASKS, features, texts, labels, five(), JointFit(), refit=True).joint
    settings, arrays = joint.to_parts()
    terms = None if joint.terms is None else joint.terms.to_json()
    for name in ("mean", "topic.coefficients", "topic.bias", "tags.slope"):
        with pytest.raises(ValueError, match=r"shape|fit"):
            Joint.from_parts(TASKS, settings, {**arrays, name: arrays[name][:-1]}, terms)
    with pytest.raises(ValueError, match="unknown kernel"):
        Joint.from_parts(TASKS, {**settings, "kernel": "magic"}, arrays, terms)


def test_scores_are_probabilities_that_hold():
    """Of answers given with a certain probability about that share is right."""
    features, texts, labels = made(by_words=False, by_features=True)
    features = features / 2 + np.random.default_rng(1).normal(size=features.shape).astype("f")
    fitted = fit_joint(TASKS, features, texts, labels, five(), JointFit(), refit=True)
    scores = fitted.left_out["topic"]
    right = scores.argmax(1) == labels["topic"]
    assert abs(scores.max(1).mean() - right.mean()) < 0.06
    tags = fitted.left_out["tags"]
    assert abs(tags.mean() - labels["tags"].mean()) < 0.03


def test_without_features_terms_are_all_there_is():
    features, texts, labels = made(by_words=True, by_features=False)
    fitted = fit_joint(TASKS, features[:, :0], texts, labels, five(), JointFit(), refit=True)
    assert fitted.chosen["topic"]["share_of_terms"] == 1
    assert accuracy(fitted, labels) > 0.9
    assert fitted.joint.landmarks.shape[1] == 0


def test_characters_alone_tell_words_apart():
    features, texts, labels = made(by_words=True, by_features=False)
    settings = JointFit(word_ngrams=0)
    fitted = fit_joint(TASKS, features[:, :0], texts, labels, five(), settings, refit=True)
    assert accuracy(fitted, labels) > 0.85
    assert [part["word_ngrams"] for part in fitted.joint.terms.to_json()] == [2]
    assert all(part["char_ngrams"] for part in fitted.joint.terms.to_json())


def test_a_feature_that_never_varied_does_no_harm_when_it_does():
    features, texts, labels = made(by_words=False, by_features=True)
    features[:, 5] = 0.25
    fitted = fit_joint(TASKS, features, texts, labels, five(), JointFit(), refit=True)
    odd = features.copy()
    odd[:, 5] += 0.1
    before, after = (fitted.joint.scores(each, texts)["topic"] for each in (features, odd))
    assert np.isfinite(after).all()
    assert (before.argmax(1) == after.argmax(1)).mean() > 0.95


def test_a_kernel_over_many_equal_landmarks_is_solved():
    """Two hundred rows, of which but ten differ."""
    features, texts, labels = made(by_words=False, by_features=True)
    features[:200] = features[np.arange(200) % 10]
    settings = JointFit(exact_up_to=50, landmarks=220, word_ngrams=0, char_ngrams=None)
    fitted = fit_joint(TASKS, features, texts, labels, five(), settings, refit=True)
    assert np.isfinite(fitted.left_out["topic"]).all()


def test_texts_of_signs_alone_are_read_by_their_characters():
    rng = np.random.default_rng(0)
    topic = rng.integers(0, 3, N)
    signs = (("😀", "🎉"), ("😡", "💢"), ("…", "¿"))
    texts = [" ".join(rng.choice(signs[c], size=3)) for c in topic]
    labels = {"topic": topic, "tags": np.eye(3, dtype=bool)[topic]}
    empty = np.zeros((N, 0), dtype=np.float32)
    fitted = fit_joint(TASKS, empty, texts, labels, five(), JointFit(), refit=True)
    assert accuracy(fitted, labels) == 1
