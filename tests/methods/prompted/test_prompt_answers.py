"""The method ``prompt``: answers that can't be read, scores and their calibration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from newsroom import TOPIC, news, reader_rule, topic_of
from scripted_generator import Scripted, asked_text

from llmembed.contract import Silent, Usage
from llmembed.errors import NoAnswerError
from llmembed.methods.asked import InvalidAnswers
from llmembed.methods.demonstrations import unit_vectors, view_reader
from llmembed.methods.prompt_classifier import CONTENT_FREE
from llmembed.methods.prompted.prompt import Prompting
from llmembed.tracking.pyfunc import answer as served_by_mlflow


def fit(method, tasks, train, runtime):
    return method.fit(tasks, train, train, runtime, Silent())


def stubborn(prompt, sampling):
    """Reads only texts about oil; tells another label when asked again with a later seed."""
    if topic_of(asked_text(prompt)) == "oil":
        return "oil"
    return "hm" if sampling.seed < 2_000_000 else topic_of(asked_text(prompt))


def test_unreadable_answers_are_wrong_by_default(runtime):
    classifier = fit(Prompting(generator=Scripted(rule=stubborn), k=0), [TOPIC], news(9), runtime)
    answer = classifier.predict(news(6).texts, runtime)["topic"]
    assert answer.labels.tolist() == [0, -1, -1, 0, -1, -1]
    assert answer.invalid.tolist() == [False, True, True, False, True, True]
    assert any("4 answers could not be read" in note for note in classifier.notes)


def test_retry_asks_again_only_what_was_not_read(runtime):
    generator = Scripted(rule=stubborn)
    method = Prompting(generator=generator, k=0, invalid=InvalidAnswers(policy="retry", retries=3))
    classifier = fit(method, [TOPIC], news(9), runtime)
    answer = classifier.predict(news(6).texts, runtime)["topic"]
    assert answer.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert len(generator.asked) == 6 + 4 + 4
    assert [sampling.temperature for _, sampling in generator.asked] == [0.0] * 6 + [0.7] * 8
    assert len({sampling.seed for _, sampling in generator.asked}) == 3
    assert classifier.predict_usage.calls == 14, "asking again costs"
    assert any("8 questions were asked again" in note for note in classifier.notes)


def test_nearest_label_of_an_unreadable_answer_is_marked(runtime, view):
    said = "supply talks price"
    generator = Scripted(rule=lambda p, s: "" if asked_text(p) == "silence" else said)
    names = {"oil": "supply oil price", "grain": "exports fell", "banks": "cut rates"}
    method = Prompting(
        generator=generator,
        style="zero_shot",
        verbaliser={"topic": names},
        invalid=InvalidAnswers(policy="nearest", view=view),
    )
    classifier = fit(method, [TOPIC], news(9), runtime)
    answer = classifier.predict(["x", "silence"], runtime)["topic"]
    vectors, _ = unit_vectors(view_reader(view), [*names.values(), said], runtime)
    expected = int((vectors[:3] @ vectors[3]).argmax())
    assert answer.labels.tolist() == [expected, -1], "an empty answer is near nothing"
    assert answer.invalid.tolist() == [False, True]
    assert any("1 unreadable answers were given the label nearest" in n for n in classifier.notes)
    assert any("2 answers could not be read" in note for note in classifier.notes)
    assert method.settings["invalid"]["policy"] == "nearest"
    assert classifier.predict_usage.tokens > 0, "embedding labels and answers"


def biased(prompt, candidate):
    """Log-probabilities that lean to ``banks`` whatever the text, and a little to what it says."""
    lean = {"oil": 0.0, "grain": 0.0, "banks": 3.0}[candidate]
    text = asked_text(prompt)
    return lean + (1.0 if text not in CONTENT_FREE and topic_of(text) == candidate else 0.0)


def test_calibration_takes_the_models_bias_away(runtime):
    generator = Scripted(rule=reader_rule, scorer=biased, gives_scores=True)
    method = Prompting(generator=generator, style="zero_shot", decision="score")
    test = news(12)
    raw = fit(method, [TOPIC], news(9), runtime).predict(test.texts, runtime)["topic"]
    assert set(raw.labels) == {2}
    e = np.e
    expected = np.array([e, 1, e**3]) / (e + 1 + e**3)
    np.testing.assert_allclose(raw.scores[0], expected, rtol=1e-5)
    classifier = fit(replace(method, calibrate=True), [TOPIC], news(9), runtime)
    found = classifier.predict(test.texts, runtime)["topic"]
    np.testing.assert_array_equal(found.labels, test.labels["topic"])
    np.testing.assert_allclose(found.scores[0], np.array([e, 1, 1]) / (e + 2), rtol=1e-5)
    assert classifier.predict_usage.tokens == (12 + len(CONTENT_FREE)) * 3
    assert classifier.predict([], runtime)["topic"].scores.shape == (0, 3)


def test_asking_again_is_for_what_was_answered(runtime):
    """A call that never came was tried often enough; one that never came again is missing, too."""

    def rule(prompt, sampling):
        topic = topic_of(asked_text(prompt))
        if topic == "grain":
            return None
        return "oil" if topic == "oil" else "hm" if sampling.seed < 1_000_000 else None

    generator = Scripted(rule=rule)
    method = Prompting(generator=generator, k=0, invalid=InvalidAnswers(policy="retry", retries=2))
    classifier = fit(method, [TOPIC], news(9), runtime)
    answer = classifier.predict(news(3).texts, runtime)["topic"]
    assert answer.labels.tolist() == [0, -1, -1]
    assert answer.unanswered.tolist() == [False, True, True]
    assert len(generator.asked) == 3 + 1
    assert not any("answers could not be read" in note for note in classifier.notes)
    assert classifier.complaints == ("no answer: down (2 times)",)


def test_a_score_that_got_no_answer_is_invalid(runtime):
    def broken(prompt, candidate):
        if "refuse" in asked_text(prompt):
            return -np.inf
        return np.nan if topic_of(asked_text(prompt)) == "grain" else biased(prompt, candidate)

    generator = Scripted(rule=reader_rule, scorer=broken, gives_scores=True)
    method = Prompting(generator=generator, style="zero_shot", decision="score")
    for calibrate in (False, True):
        classifier = fit(replace(method, calibrate=calibrate), [TOPIC], news(9), runtime)
        answer = classifier.predict([*news(3).texts, "refuse oil"], runtime)["topic"]
        assert answer.labels.tolist() == ([0, -1, 2, -1] if calibrate else [2, -1, 2, -1])
        assert answer.invalid.tolist() == [False, True, False, True]
        assert answer.unanswered.tolist() == [False, True, False, False]
        assert [*classifier.refused] == [3]
        assert np.isfinite(answer.scores).all()


def test_no_answer_at_all_is_told(runtime):
    classifier = fit(
        Prompting(generator=Scripted(rule=lambda *_: None), k=0), [TOPIC], news(9), runtime
    )
    answer = classifier.predict(["a", "b"], runtime)["topic"]
    assert answer.invalid.all() and answer.unanswered.all()
    with pytest.raises(NoAnswerError, match="2 of 2 texts got no answer"):
        served_by_mlflow(classifier, ["a", "b"], {})
    assert any("no answer: down (2 times)" in note for note in classifier.notes)
    assert classifier.fit_usage == Usage()
