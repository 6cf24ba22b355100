"""The method ``carp``: rationales made once, worked answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from carp_world import ONE_ROUND, fit, stage_of
from newsroom import TOPIC, news, reader_rule, topic_of
from scripted_generator import Cut, Scripted, asked_text, whole

from llmembed.contract import Classifier, Task, Usage
from llmembed.errors import ConfigError, ModelError, UnsupportedError
from llmembed.evaluation import evaluate
from llmembed.methods import load
from llmembed.methods.prompted.carp import Carp
from llmembed.methods.prompted.carp_classifier import CarpClassifier
from llmembed.methods.prompted.voting import Rounds
from llmembed.permissions import Allowed
from llmembed.texts import Corpus


def test_clues_then_reasoning_then_label_in_rounds_of_their_own_seed(view, runtime):
    generator = Scripted(rule=reader_rule)
    train, test = news(30), news(4, seed=9)
    method = Carp(generator=generator, k=3, view=view, rounds=Rounds(number=3)).seeded(5)
    classifier = fit(method, train, runtime)
    assert isinstance(classifier, Classifier)
    assert not generator.asked, "rationales are made when they are needed"
    answer = classifier.predict(test.texts, runtime)["topic"]
    np.testing.assert_array_equal(answer.labels, test.labels["topic"])
    np.testing.assert_allclose(answer.scores.max(axis=1), 1.0)
    answers = [(p, s) for p, s in generator.asked if stage_of(p) == "answer"]
    assert len(answers) == 3 * 4
    assert [s.seed for _, s in answers] == [15] * 4 + [16] * 4 + [17] * 4
    assert {s.temperature for _, s in answers} == {0.7}
    assert {s.temperature for p, s in generator.asked if stage_of(p) != "answer"} == {0.0}
    blocks = whole(answers[0][0]).partition("<<< examples")[2].partition(">>> examples")[0]
    for cue in ("Text: ", "Clues: ", "Reasoning: these words speak of ", "Label: "):
        assert blocks.count(cue) == 3
    assert whole(answers[0][0]).endswith("Clues:")
    assert "\nClues: Clues:" not in blocks, "a repeated cue is taken off"


def test_a_rationale_is_made_once_for_an_example_used_twice(view, runtime):
    generator = Scripted(rule=reader_rule)
    train = news(6)
    classifier = fit(Carp(generator=generator, k=2, view=view, rounds=ONE_ROUND), train, runtime)
    classifier.predict([train.texts[0], train.texts[0] + " "], runtime)
    shown = {
        row for each in classifier.demonstrations.choose([train.texts[0]], None)[0] for row in each
    }
    asked = [asked_text(p) for p, _ in generator.asked if stage_of(p) == "clues"]
    assert len(asked) == len(set(asked))
    assert {train.texts[row] for row in shown} <= set(asked)
    before = len(generator.asked)
    classifier.predict([train.texts[0]], runtime)
    assert len(generator.asked) == before + 1, "only the answer is asked for again"
    # A fit of another day, in another process as it were, finds them in the files.
    other = Scripted(rule=reader_rule)
    again = fit(Carp(generator=other, k=2, view=view, rounds=ONE_ROUND), train, runtime)
    again.predict([train.texts[0]], runtime)
    assert [stage_of(p) for p, _ in other.asked] == ["answer"]


def test_the_rationales_are_a_parquet_to_look_into(view, runtime):
    generator = Scripted(rule=reader_rule)
    train = news(6)
    classifier = fit(Carp(generator=generator, k=2, view=view, rounds=ONE_ROUND), train, runtime)
    classifier.predict(news(3, 1).texts, runtime)
    (folder,) = (Path(runtime.files) / "rationales").iterdir()
    rows = pq.read_table(folder).to_pylist()
    made = [p for p, _ in generator.asked if stage_of(p) != "answer"]
    assert 2 * len(rows) == len(made)
    for row in rows:
        assert set(row) >= {"key", "label", "clues", "reasoning", "model", "prompt_tokens"}
        assert row["label"] in TOPIC.classes
        assert row["clues"] and "\n" not in row["clues"]
        assert row["reasoning"].endswith(row["label"])
    assert sum(row["prompt_tokens"] for row in rows) == sum(len(whole(p).split()) for p in made)


def test_rationales_belong_to_fitting_and_are_paid_for_once(view, runtime):
    generator = Scripted(rule=reader_rule)
    train = news(12)
    corpus = Corpus(
        name="news", tasks=(TOPIC,), train=train, valid=news(6, 1), test=news(9, 2), digest="d"
    )
    method = Carp(generator=generator, k=4, view=view, rounds=Rounds(number=2))
    (result,) = evaluate(method, corpus, runtime, seeds=[0], latency_budget_seconds=0)
    rationales = [p for p, _ in generator.asked if stage_of(p) != "answer"]
    assert result.status == "ok"
    assert result.test["topic"].value == 1.0
    assert result.machinery_only
    assert result.fit_usage.calls == len(rationales)
    assert result.fit_usage.prompt_tokens == sum(len(whole(p).split()) for p in rationales)
    assert result.predict_usage.calls == 2 * 9
    # Another fit with the same rationales bears their cost, though nothing was spent on them.
    other = replace(method, generator=Scripted(rule=reader_rule))
    (again,) = evaluate(other, corpus, runtime, seeds=[0], latency_budget_seconds=0)
    assert again.fit_usage.prompt_tokens == result.fit_usage.prompt_tokens
    assert other.generator.paid().calls < generator.paid().calls


def test_without_demonstrations_no_rationale_is_asked_for(runtime):
    generator = Scripted(rule=reader_rule)
    classifier = fit(Carp(generator=generator, k=0, rounds=ONE_ROUND), news(6), runtime)
    test = news(6, 3)
    answer = classifier.predict(test.texts, runtime)["topic"]
    np.testing.assert_array_equal(answer.labels, test.labels["topic"])
    assert {stage_of(prompt) for prompt, _ in generator.asked} == {"answer"}
    assert classifier.fit_usage == Usage()
    assert classifier.predict([], runtime)["topic"].scores.shape == (0, 3)


def test_each_task_is_worked_out_by_itself(view, runtime):
    train = news(9)
    labels = {**train.labels, "long": (np.arange(9) % 2)}
    train = replace(train, labels=labels)
    generator = Scripted(
        rule=lambda p, s: "x\nLabel: yes" if "- yes" in whole(p) else reader_rule(p, s)
    )
    tasks = (TOPIC, Task(name="long", classes=("no", "yes")))
    classifier = fit(
        Carp(generator=generator, k=2, view=view, rounds=ONE_ROUND), train, runtime, tasks
    )
    found = classifier.predict(news(3, 4).texts, runtime)
    assert found["topic"].labels.tolist() == [0, 1, 2]
    assert found["long"].labels.tolist() == [1, 1, 1]


def test_what_would_be_asked_is_known_before(view, runtime):
    generator = Scripted(rule=reader_rule)
    train, test = news(12), news(3, 4)
    classifier = fit(Carp(generator=generator, k=2, view=view), train, runtime)
    planned = classifier.plan(test.texts, runtime)
    assert not generator.asked
    assert [each.what for each in planned] == ["carp_clues", "carp_reasoning", *["answers"] * 3]
    classifier.predict(test.texts, runtime)
    asked = generator.asked
    assert [p for p, _ in asked if stage_of(p) == "clues"] == planned[0].prompts
    assert sum(len(each.prompts) for each in planned) == len(asked)
    samplings = [each.sampling for each in planned[2:] for _ in test.texts]
    assert [s for p, s in asked if stage_of(p) == "answer"] == samplings
    longest = sum(map(sum, (generator.count_tokens(each.prompts) for each in planned)))
    assert longest >= classifier.fit_usage.prompt_tokens + classifier.predict_usage.prompt_tokens
    left = classifier.plan(test.texts, runtime)
    assert [each.what for each in left] == ["answers"] * 3, "the rationales are there now"


def test_the_farthest_demonstration_is_dropped_and_the_text_is_whole(view, runtime):
    generator = Scripted(rule=reader_rule)
    train = news(20)
    method = Carp(
        generator=generator,
        k=6,
        view=view,
        rounds=ONE_ROUND,
        max_answer_tokens=50,
        max_rationale_tokens=9,
    )
    fit(method, train, runtime).predict(["oil price grain"], runtime)
    full = whole(generator.asked[-1][0])
    shown = [line for line in full.splitlines() if line.startswith("Text: ")]
    tight = Scripted(rule=reader_rule, name="tight", context=len(full.split()) - 1 + 50)
    classifier = fit(replace(method, generator=tight), train, runtime)
    classifier.predict(["oil price grain"], runtime)
    fewer = whole(tight.asked[-1][0])
    assert [line for line in fewer.splitlines() if line.startswith("Text: ")] == shown[1:]
    assert asked_text(tight.asked[-1][0]) == "oil price grain"
    assert any("1 demonstrations were dropped" in note for note in classifier.notes)


def test_a_rationale_that_got_no_answer_is_left_out_and_asked_again(view, runtime):
    down = [True]

    def rule(prompt, sampling):
        lost = down[0] and stage_of(prompt) == "reasoning" and topic_of(asked_text(prompt)) == "oil"
        return None if lost else reader_rule(prompt, sampling)

    generator = Scripted(rule=rule)
    train = news(6)
    classifier = fit(Carp(generator=generator, k=6, view=view, rounds=ONE_ROUND), train, runtime)
    classifier.predict(["grain"], runtime)
    assert whole(generator.asked[-1][0]).count("\nText: ") == 4
    assert any("2 demonstrations had no rationale" in note for note in classifier.notes)
    spent = sum(len(whole(p).split()) for p, _ in generator.asked if stage_of(p) != "answer")
    assert classifier.fit_usage.prompt_tokens == spent, "what came to nothing was paid for, too"
    down[0] = False
    classifier.predict(["grain"], runtime)
    assert whole(generator.asked[-1][0]).count("\nText: ") == 6


@pytest.mark.parametrize("stage", ["clues", "reasoning"])
@pytest.mark.parametrize(
    ("useless", "why"), [("  ", "an empty answer"), (Cut("Clues: so and"), "cut at max_rationale")]
)
def test_an_empty_or_cut_rationale_is_none(stage, useless, why, view, runtime, tmp_path):
    garbage = [True]

    def rule(prompt, sampling):
        lost = garbage[0] and stage_of(prompt) == stage and topic_of(asked_text(prompt)) == "oil"
        return useless if lost else reader_rule(prompt, sampling)

    generator = Scripted(rule=rule)
    train = news(6)
    classifier = fit(Carp(generator=generator, k=6, view=view, rounds=ONE_ROUND), train, runtime)
    classifier.predict(["grain"], runtime)
    assert whole(generator.asked[-1][0]).count("\nText: ") == 4
    assert any("2 demonstrations had no rationale" in note for note in classifier.notes)
    assert any(f"no rationale, {stage}: {why}" in note for note in classifier.notes)
    (folder,) = (Path(runtime.files) / "rationales").iterdir()
    kept = [row for part in folder.glob("part-*") for row in pq.read_table(part).to_pylist()]
    assert len(kept) == 4 and all(row["clues"] and row["reasoning"] for row in kept)
    classifier.save(tmp_path / "saved")
    garbage[0] = False
    # A run of an earlier version kept them all the same.
    empty = [{**kept[0], "key": row, "clues": ""} for row in ("a", "b")]
    pq.write_table(pa.Table.from_pylist(empty), folder / "part-0002-0000000000000000.parquet")
    again = fit(Carp(generator=generator, k=6, view=view, rounds=ONE_ROUND), train, runtime)
    again.predict(["grain"], runtime)
    assert whole(generator.asked[-1][0]).count("\nText: ") == 6
    assert not any("rationale" in note for note in again.notes)
    (worked,) = again.worked
    assert all(each.whole for each in worked.rationales.known.values())


def test_a_vote_that_lacks_a_round_is_unanswered(view, runtime):
    def rule(prompt, sampling):
        lost = stage_of(prompt) == "answer" and sampling.seed == 1 and "oil" in asked_text(prompt)
        return None if lost else reader_rule(prompt, sampling)

    method = Carp(generator=Scripted(rule=rule), k=0, view=view, rounds=Rounds(number=3))
    found = fit(method, news(6), runtime).predict(["grain rose", "oil rose"], runtime)["topic"]
    assert found.unanswered.tolist() == [False, True]
    assert found.invalid.tolist() == [False, False]


def test_saved_and_loaded_it_has_its_rationales(view, runtime, tmp_path):
    generator = Scripted(rule=reader_rule)
    method = Carp(generator=generator, k=3, view=view, rounds=Rounds(number=2), benchmark="r8")
    classifier = fit(method, news(12), runtime)
    test = news(5, 8)
    before = classifier.predict(test.texts)["topic"]
    classifier.save(tmp_path / "saved")
    assert {path.suffix for path in (tmp_path / "saved").iterdir()} == {".json", ".safetensors"}
    again = Scripted(rule=reader_rule)
    loaded = CarpClassifier.load(tmp_path / "saved", generator=again)
    assert loaded.fit_usage == classifier.fit_usage
    after = loaded.predict(test.texts)["topic"]
    np.testing.assert_array_equal(before.labels, after.labels)
    np.testing.assert_array_equal(before.scores, after.scores)
    assert {stage_of(p) for p, _ in again.asked} == {"answer"}
    ours = [whole(p) for p, _ in generator.asked if stage_of(p) == "answer"]
    assert [whole(p) for p, _ in again.asked] == ours
    with pytest.raises(ModelError, match=r"asks m at http://h .*which was not allowed"):
        load(tmp_path / "saved")
    assert load(tmp_path / "saved", Allowed(endpoints=("http://h=none",))).method == "carp"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda g: Rounds(number=0), "one round or more"),
        (lambda g: Rounds(number=2, temperature=0.0), "all rounds are the same"),
        (lambda g: Rounds(vote="loud"), "'loud'"),
        (lambda g: Carp(generator=g, templates={"carp_clue": "x"}), "no template 'carp_clue'"),
    ],
)
def test_what_can_not_be_asked_for(make, said):
    with pytest.raises(ConfigError, match=said):
        make(Scripted(rule=reader_rule))


def test_only_single_labels(runtime):
    tags = Task(name="tags", classes=("a", "b"), kind="multi")
    with pytest.raises(UnsupportedError, match=r"'carp'.*'tags'"):
        fit(Carp(generator=Scripted(rule=reader_rule), k=0), news(3), runtime, [tags])
