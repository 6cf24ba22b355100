"""A class of texts that fit no class: its figures and those of the others, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from small_corpora import made_up
from small_methods import FitWordVotes

from llmembed.contract import Prediction, Task
from llmembed.errors import ConfigError
from llmembed.evaluation import Leaderboard, Scores, evaluate, score
from llmembed.evaluation.open_sets import told_of_other, with_other
from llmembed.experiment import Data
from llmembed.pipelines.corpus import make_corpus

INTENTS = Task(name="intent", classes=("pay", "out-of-scope", "send"))
PAY, OTHER, SEND, UNREAD = 0, 1, 2, -1


def scored(truth: list[int], answers: list[int]) -> Scores:
    labels = np.array(answers)
    prediction = Prediction(labels=labels, scores=None, invalid=labels < 0)
    return score(INTENTS, np.array(truth), prediction)


def test_in_scope_and_other_are_told_apart():
    """In scope: 5 texts, of which one is taken for ``other``, one for another class and one
    answer can't be read; out of scope: 3 texts, 1 of them taken for ``pay``."""
    truth = [PAY, PAY, PAY, SEND, SEND, OTHER, OTHER, OTHER]
    answers = [PAY, OTHER, SEND, SEND, UNREAD, OTHER, OTHER, PAY]
    found = with_other(scored(truth, answers), "out-of-scope")
    assert found.metrics["in_scope_accuracy"] == pytest.approx(2 / 5)
    assert found.metrics["other_recall"] == pytest.approx(2 / 3)
    assert found.metrics["other_precision"] == pytest.approx(2 / 3)
    assert found.metrics["accuracy"] == pytest.approx(4 / 8)
    assert told_of_other(found) == (
        "of the texts in scope .4000 are answered rightly; of those out of scope .6667 are "
        "recognised; an answer that a text is out of scope is right in .6667"
    )


def test_shares_of_no_texts_are_left_out():
    without = with_other(scored([PAY, SEND], [PAY, PAY]), "out-of-scope").metrics
    assert without["in_scope_accuracy"] == 0.5
    assert "other_recall" not in without and "other_precision" not in without
    never = with_other(scored([PAY, OTHER], [PAY, PAY]), "out-of-scope").metrics
    assert never["other_recall"] == 0.0 and "other_precision" not in never
    wrongly = with_other(scored([PAY, SEND], [OTHER, SEND]), "out-of-scope").metrics
    assert wrongly["other_precision"] == 0.0


def test_scores_without_such_a_class_stay_as_they_are():
    plain = scored([PAY, SEND], [PAY, PAY])
    assert with_other(plain, None) is plain
    assert with_other(plain, "elsewhere") is plain
    assert told_of_other(plain) is None


def test_a_board_tells_of_the_declared_class():
    corpus = replace(made_up(seed=0), other_label="rain")
    results = evaluate(FitWordVotes(share=0.9), corpus, None, seeds=(0,))
    [result] = results
    for part in (result.valid, result.test):
        assert {"in_scope_accuracy", "other_recall"} <= part["topic"].metrics.keys()
    said = told_of_other(result.test["topic"])
    assert f"- word-votes 0.9, topic: {said}." in Leaderboard(results).to_markdown()


def test_the_experiment_names_a_class_that_there_is(tmp_path):
    path = tmp_path / "intents.csv"
    rows = [f"text number {i},{INTENTS.classes[i % 3]}" for i in range(60)]
    path.write_text("\n".join(["text,label", *rows]) + "\n")
    data = Data(source=str(path), other_label="out-of-scope", limit=20)
    assert make_corpus(data, str(tmp_path)).other_label == "out-of-scope"
    with pytest.raises(ConfigError, match=r"data.other_label: .*'out_of_scope'.*'out-of-scope'"):
        make_corpus(Data(source=str(path), other_label="out_of_scope"), str(tmp_path))
