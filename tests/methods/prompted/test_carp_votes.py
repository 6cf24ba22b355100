"""The rounds of ``carp`` and how they vote."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from carp_world import fit
from newsroom import news
from scripted_generator import Scripted, asked_text

from llmembed.methods.asked import InvalidAnswers
from llmembed.methods.prompted.carp import Carp
from llmembed.methods.prompted.voting import Rounds, comparable, voted


def test_votes():
    labels = np.array([[0, 1, -1, 2], [1, 1, -1, 0], [1, -1, -1, -1]])
    answer = voted(labels, np.ones((3, 4)), 3)
    assert answer.labels.tolist() == [1, 1, -1, 2], "a tie goes to the first answer"
    assert answer.invalid.tolist() == [False, False, True, False]
    np.testing.assert_allclose(answer.scores[0], [1 / 3, 2 / 3, 0])
    np.testing.assert_allclose(answer.scores[1], [0, 1, 0])
    np.testing.assert_allclose(answer.scores[2], 0)
    weighted = voted(labels, np.array([[0.9, 1, 1, 0.1], [0.2, 1, 1, 0.3], [0.3, 1, 1, 1]]), 3)
    assert weighted.labels.tolist() == [0, 1, -1, 0]
    np.testing.assert_allclose(weighted.scores[0], [0.9 / 1.4, 0.5 / 1.4, 0], rtol=1e-6)


def divided(prompt, sampling):
    """Round 0 says oil, surely; rounds 1 and 2 say grain, hardly."""
    topic, probability = ("oil", 0.9) if sampling.seed % 3 == 0 else ("grain", 0.2)
    tokens = [("c\nReasoning: r\nLabel:", -9.0), (f" {topic}", math.log(probability))]
    return "".join(token for token, _ in tokens), tuple(tokens)


@pytest.mark.parametrize(
    ("vote", "label", "share"), [("majority", 1, 2 / 3), ("weighted", 0, 9 / 13)]
)
def test_majority_and_weighted_votes_may_differ(vote, label, share, runtime):
    generator = Scripted(rule=divided)
    method = Carp(generator=generator, k=0, rounds=Rounds(number=3, vote=vote))
    answer = fit(method, news(6), runtime).predict(["x"], runtime)["topic"]
    assert answer.labels.tolist() == [label]
    assert answer.scores[0, label] == pytest.approx(share, abs=1e-6)
    assert {s.logprobs for _, s in generator.asked} == {vote == "weighted"}


def test_a_round_without_a_label_line_does_not_outvote_sure_ones(runtime):
    def rule(prompt, sampling):
        if sampling.seed % 3 == 0:
            return "oil", (("oil", -3.0),)
        if sampling.seed % 3 == 1:
            return "oil; banks\nReasoning: oil", (("oil; banks\nReasoning: oil", -3.0),)
        return "Label: grain", (("Label:", -1.0), (" grain", math.log(0.4)))

    method = Carp(generator=Scripted(rule=rule), k=0, rounds=Rounds(number=3, vote="weighted"))
    answer = fit(method, news(6), runtime).predict(["x"], runtime)["topic"]
    assert answer.labels.tolist() == [1]
    assert answer.scores[0, 1] == pytest.approx(1.0, abs=1e-6)


def test_where_a_round_tells_no_log_probabilities_the_rounds_of_that_text_are_counted(runtime):
    def rule(prompt, sampling):
        text, logprobs = divided(prompt, sampling)
        hidden = asked_text(prompt) == "partly" and sampling.seed % 3 == 1
        return (text, None) if hidden else (text, logprobs)

    method = Carp(generator=Scripted(rule=rule), k=0, rounds=Rounds(number=3, vote="weighted"))
    classifier = fit(method, news(6), runtime)
    answer = classifier.predict(["partly", "wholly"], runtime)["topic"]
    assert answer.labels.tolist() == [1, 0], "two against one, though the one is sure; by weight"
    assert answer.scores[0].tolist() == pytest.approx([1 / 3, 2 / 3, 0])
    assert answer.scores[1, 0] == pytest.approx(9 / 13, abs=1e-6)
    (note,) = [note for note in classifier.notes if "majority" in note]
    assert note.startswith("of 2 texts: 1 were voted on")


def test_a_round_that_does_not_vote_needs_no_weight():
    labels = np.array([[0, 0], [1, 1], [1, -1]])
    told = np.array([[0.9, 0.9], [0.2, 0.2], [np.nan, np.nan]])
    weights, counted = comparable(labels, told)
    assert counted == 1
    np.testing.assert_array_equal(weights, [[1, 0.9], [1, 0.2], [1, 1]])
    assert voted(labels, weights, 2).labels.tolist() == [1, 0]


def test_unreadable_rounds_do_not_vote(runtime):
    def rule(prompt, sampling):
        if asked_text(prompt) == "lost" or sampling.seed in (0, 1):
            return "Reasoning: oil or grain\nLabel: either"
        return "Label: banks"

    method = Carp(generator=Scripted(rule=rule), k=0, rounds=Rounds(number=3))
    classifier = fit(method, news(6), runtime)
    answer = classifier.predict(["x", "lost"], runtime)["topic"]
    assert answer.labels.tolist() == [2, -1]
    assert answer.scores[0].tolist() == [0, 0, 1]
    assert any("5 answers could not be read" in note for note in classifier.notes)
    asking = replace(method, generator=Scripted(rule=rule), invalid=InvalidAnswers(policy="retry"))
    fit(asking, news(6), runtime).predict(["x"], runtime)
    seeds = [s.seed for _, s in asking.generator.asked]
    assert len(seeds) == len(set(seeds)) == 5
