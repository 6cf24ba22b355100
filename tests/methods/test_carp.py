"""The method ``carp``: rationales made once, worked answers, votes; whole against a real server."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from newsroom import TOPIC, news, reader_rule, topic_of
from openai_server import OpenAIServer
from scripted_generator import Scripted, asked_text, user, whole

from llmembed.backbones import View, parse_reads
from llmembed.cluster import LocalRuntime
from llmembed.contract import Classifier, Silent, Task, Usage
from llmembed.errors import BudgetError, ConfigError, UnsupportedError
from llmembed.evaluation import evaluate
from llmembed.generation import Budget
from llmembed.generation.building import build_generator
from llmembed.metering import Prices
from llmembed.methods import load
from llmembed.methods.asking import InvalidAnswers
from llmembed.methods.carp import Carp
from llmembed.methods.carp_classifier import CarpClassifier
from llmembed.methods.voting import Rounds, comparable, voted
from llmembed.texts import Corpus

ONE_ROUND = Rounds(number=1, temperature=0.0)


@pytest.fixture
def view(tiny_spec) -> View:
    return View(backbone=tiny_spec, reads=parse_reads("mean:1"))


@pytest.fixture
def runtime(tmp_path):
    with LocalRuntime(tmp_path / "files") as runtime:
        yield runtime


def fit(method, train, runtime, tasks=(TOPIC,)):
    return method.fit(tasks, train, train, runtime, Silent())


def stage_of(prompt) -> str:
    said = whole(prompt)
    if "has the label" in said:
        return "clues" if said.endswith("Clues:") else "reasoning"
    return "answer"


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
    assert load(tmp_path / "saved").method == "carp"


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


# Against a real server that speaks the OpenAI protocol.


def served(messages) -> str:
    return reader_rule((*user(""), *(user(message["content"])[0] for message in messages)), None)


@pytest.fixture
def server():
    with OpenAIServer(served) as server:
        yield server


def described(server, tmp_path, **more):
    return {
        "kind": "endpoint",
        "model": "scripted",
        "base_url": server.url,
        "api_key_env": None,
        "machinery_only": "a scripted server",
        "cache": str(tmp_path / "answers.sqlite"),
        **more,
    }


def test_the_whole_of_carp_costs_what_the_server_counted(server, view, runtime, tmp_path):
    corpus = Corpus(
        name="news", tasks=(TOPIC,), train=news(30), valid=news(6, 1), test=news(12, 2), digest="d"
    )
    generator = build_generator(described(server, tmp_path))
    method = Carp(generator=generator, k=4, view=view, rounds=Rounds(number=2))
    saved = []
    (result,) = evaluate(
        method, corpus, runtime, seeds=[0], latency_budget_seconds=0,
        on_fitted=lambda _, classifier: saved.append(classifier),
    )  # fmt: skip
    assert result.status == "ok", result.reason
    assert result.test["topic"].value == 1.0
    assert result.machinery_only
    on_valid = 2 * 6
    answers = [c for c in server.billed if "has the label" not in c.messages[-1]["content"]]
    assert len(answers) >= on_valid + 2 * 12
    made = [c for c in server.billed if "has the label" in c.messages[-1]["content"]]
    assert result.fit_usage.prompt_tokens == sum(c.prompt_tokens for c in made)
    assert result.fit_usage.completion_tokens == sum(c.completion_tokens for c in made)
    on_test = [c for c in answers if any(t in c.messages[-1]["content"] for t in corpus.test.texts)]
    assert result.predict_usage.prompt_tokens == sum(c.prompt_tokens for c in on_test[: 2 * 12])
    assert generator.paid().prompt_tokens == server.prompt_tokens
    assert generator.paid().completion_tokens == server.completion_tokens
    # Once more with the same cache: the same figures, and the server hears nothing.
    heard = len(server.calls)
    again = replace(method, generator=build_generator(described(server, tmp_path)))
    (second,) = evaluate(again, corpus, runtime, seeds=[0], latency_budget_seconds=0)
    assert len(server.calls) == heard
    assert second.usage.prompt_tokens == result.usage.prompt_tokens
    assert again.generator.paid().calls == 0
    saved[0].save(tmp_path / "saved")
    loaded = load(tmp_path / "saved")
    assert loaded.predict([corpus.test.texts[0]])["topic"].labels.tolist() == [0]


@pytest.mark.parametrize("tokens", [2_000, 4_000, 8_000])
def test_a_failed_row_bears_all_that_was_asked_until_then(tokens, server, view, runtime, tmp_path):
    corpus = Corpus(
        name="news", tasks=(TOPIC,), train=news(30), valid=news(6, 1), test=news(12, 2), digest="d"
    )
    settings = described(server, tmp_path, budget_tokens=tokens, concurrency=2)
    method = Carp(generator=build_generator(settings), k=4, view=view, rounds=ONE_ROUND)
    (result,) = evaluate(method, corpus, runtime, seeds=[0])
    assert result.status == "failed" and "budget" in result.reason
    assert result.usage.calls == len(server.billed) > 0
    assert result.usage.prompt_tokens == server.prompt_tokens
    assert result.usage.completion_tokens == server.completion_tokens
    assert result.cost_usd == pytest.approx(Prices().cost(result.usage))


def test_a_spent_budget_stops_and_the_rest_is_not_paid_again(server, view, runtime, tmp_path):
    train, test = news(12), news(6, 2)
    budget = Budget(tokens=3_000)
    settings = described(server, tmp_path, concurrency=2)
    method = Carp(
        generator=build_generator(settings, budget=budget), k=3, view=view, rounds=ONE_ROUND
    )
    with pytest.raises(BudgetError):
        fit(method, train, runtime).predict(test.texts, runtime)
    assert 0 < server.prompt_tokens + server.completion_tokens <= 3_000
    free = replace(method, generator=build_generator(settings))
    answer = fit(free, train, runtime).predict(test.texts, runtime)["topic"]
    np.testing.assert_array_equal(answer.labels, test.labels["topic"])
    asked = [str(call.messages) for call in server.billed]
    assert len(asked) == len(set(asked)), "nothing was paid twice"
