"""The method ``prompt``: what is asked, shown, saved and refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from newsroom import TOPIC, news, reader_rule
from scripted_generator import Scripted, asked_text, whole

from llmembed.contract import Classifier, Examples, Silent, Task
from llmembed.errors import ConfigError, UnsupportedError
from llmembed.evaluation import evaluate
from llmembed.methods import load
from llmembed.methods.asked import InvalidAnswers
from llmembed.methods.prompt_classifier import PromptClassifier
from llmembed.methods.prompted.prompt import Prompting
from llmembed.permissions import Allowed
from llmembed.texts import Corpus

SLOTS = Task(name="slots", classes=("O", "B-good", "I-good"), kind="tokens")
INTENT = Task(name="intent", classes=("buy", "sell"))
TRADES = Examples(
    texts=["buy crude oil", "sell grain now", "buy it"],
    labels={
        "intent": np.array([0, 1, 0]),
        "slots": np.array([0, 1, 2, 0, 1, 0, 0, 0]),
    },
    words=[["buy", "crude", "oil"], ["sell", "grain", "now"], ["buy", "it"]],
)


def fit(method, tasks, train, runtime):
    return method.fit(tasks, train, train, runtime, Silent())


@pytest.mark.parametrize("style", ["zero_shot", "k_shot", "io"])
def test_it_answers_and_says_what_it_took(style, runtime, view):
    generator = Scripted(rule=reader_rule)
    method = Prompting(generator=generator, style=style, view=None if style == "k_shot" else view)
    train, test = news(30), news(12, seed=7)
    classifier = fit(method, [TOPIC], train, runtime)
    assert isinstance(classifier, Classifier)
    assert not generator.asked, "fitting asks nothing"
    answer = classifier.predict(test.texts, runtime)["topic"]
    np.testing.assert_array_equal(answer.labels, test.labels["topic"])
    assert not answer.invalid.any()
    assert answer.scores is None
    usage = classifier.predict_usage
    prompts = [prompt for prompt, _ in generator.asked]
    assert usage.calls == len(prompts) == 12
    assert usage.prompt_tokens == sum(len(whole(prompt).split()) for prompt in prompts)
    assert usage.completion_tokens == 12
    shown = {"zero_shot": 0, "k_shot": 5, "io": 16}[style]
    cue = {"io": "OUTPUT: "}.get(style, "Label: ")
    assert {whole(prompt).count(cue) for prompt in prompts} == {shown}
    if style == "io":
        assert classifier.fit_usage.tokens > 0, "embedding the training texts"
        assert usage.tokens > 0, "embedding these texts"
    classifier.predict(test.texts[:1], runtime)
    assert classifier.predict_usage.calls == 1, "of the last predict only"
    assert classifier.predict([], runtime)["topic"].labels.shape == (0,)


def test_a_rival_is_evaluated_and_marked(runtime):
    train = news(30)
    corpus = Corpus(
        name="news", tasks=(TOPIC,), train=train, valid=news(9, 1), test=news(12, 2), digest="d"
    )
    method = Prompting(generator=Scripted(rule=reader_rule), k=3)
    first, second = evaluate(method, corpus, runtime, seeds=[0, 1])
    assert first.status == "ok"
    assert first.test["topic"].value == 1.0
    assert first.machinery_only
    assert first.predict_usage.calls == 12
    assert first.cost_usd > 0
    assert first.settings["demonstrations"] == "random"
    assert first.settings == second.settings
    json.dumps(first.to_json())
    assert Prompting(generator=method.generator, style="zero_shot").deterministic
    assert not method.deterministic


def test_the_seed_draws_the_demonstrations(runtime):
    method = Prompting(generator=Scripted(rule=reader_rule), k=4)
    drawn = [
        fit(method.seeded(s), [TOPIC], news(40), runtime).demonstrations.pool.texts
        for s in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_nearest_stands_last_and_gold_of_the_asked_text_is_never_read(runtime, view):
    generator = Scripted(rule=reader_rule)
    train = news(30)
    method = Prompting(generator=generator, k=3, view=view)
    classifier = fit(method, [TOPIC], train, runtime)
    classifier.predict([train.texts[4]], runtime)
    said = whole(generator.asked[0][0])
    shown = [line.removeprefix("Text: ") for line in said.splitlines() if line.startswith("Text: ")]
    assert shown[-1] == train.texts[4], "its own copy in train is nearest"
    assert len(shown) == 3


def json_rule(prompt, sampling):
    words = asked_text(prompt).split()
    tags = ["B-good" if word in ("oil", "grain") else "O" for word in words]
    if "fields" not in whole(prompt):
        return json.dumps(tags)
    return json.dumps({"intent": words[0], "slots": tags[: len(words) - 1]})


def test_several_tasks_in_one_call(runtime):
    generator = Scripted(rule=json_rule)
    classifier = fit(Prompting(generator=generator, k=2), [INTENT, SLOTS], TRADES, runtime)
    found = classifier.predict(["sell oil today", "buy grain"], runtime)
    assert len(generator.asked) == 2
    assert found["intent"].labels.tolist() == [1, 0]
    assert found["slots"].labels.tolist() == [0, 1, 0, 0, 0]
    assert found["slots"].offsets.tolist() == [0, 3, 5]
    assert any("2 words had no tag" in note for note in classifier.notes)
    assert classifier.predict([])["slots"].offsets.tolist() == [0]


def test_slots_alone(runtime):
    classifier = fit(Prompting(generator=Scripted(rule=json_rule)), [SLOTS], TRADES, runtime)
    found = classifier.predict(["sell the oil"], runtime)["slots"]
    assert found.labels.tolist() == [0, 0, 1]
    assert not found.invalid.any()
    lost = replace(classifier, generator=Scripted(rule=lambda *_: "no idea"))
    found = lost.predict(["sell the oil"], runtime)["slots"]
    assert found.labels.tolist() == [-1, -1, -1]
    assert found.invalid.tolist() == [True]


def test_a_tight_context_is_reported(runtime):
    free = Scripted(rule=reader_rule)
    train = news(30)
    classifier = fit(Prompting(generator=free, k=6), [TOPIC], train, runtime)
    classifier.predict(["oil price oil"], runtime)
    longest = len(whole(free.asked[0][0]).split())
    tight = replace(classifier, generator=Scripted(rule=reader_rule, context=longest - 3 + 32))
    answer = tight.predict(["oil price oil"], runtime)["topic"]
    assert answer.labels.tolist() == [0]
    assert tight.notes == ("of 1 texts: 1 demonstrations were dropped to fit the context",)


def test_saved_and_loaded_it_asks_the_same(runtime, view, tmp_path):
    generator = Scripted(rule=reader_rule)
    method = Prompting(
        generator=generator,
        k=3,
        view=view,
        verbaliser={"topic": {"banks": "money"}},
        invalid=InvalidAnswers(policy="retry", retries=1),
    )
    classifier = fit(method, [TOPIC], news(30), runtime)
    classifier.save(tmp_path / "saved")
    kinds = {path.suffix for path in (tmp_path / "saved").iterdir()}
    assert kinds == {".json", ".safetensors"}
    again = Scripted(rule=reader_rule)
    loaded = PromptClassifier.load(tmp_path / "saved", generator=again)
    texts = news(5, 3).texts
    before, after = classifier.predict(texts)["topic"], loaded.predict(texts)["topic"]
    np.testing.assert_array_equal(before.labels, after.labels)
    assert [whole(p) for p, _ in generator.asked] == [whole(p) for p, _ in again.asked]
    assert loaded.fit_usage == classifier.fit_usage
    assert loaded.invalid == classifier.invalid
    by_name = load(tmp_path / "saved", Allowed(endpoints=("http://h=none",)))
    assert by_name.method == "prompt"
    assert by_name.generator.name == "m@h"


def test_a_description_holds_no_key(runtime, tmp_path):
    described = {
        "kind": "endpoint",
        "model": "m",
        "base_url": "http://h/v1",
        "api_key_env": "SOME_KEY",
        "cache": str(tmp_path / "answers.sqlite"),
        "budget_usd": 1.0,
    }
    generator = Scripted(rule=reader_rule, description=described)
    fit(Prompting(generator=generator, k=0), [TOPIC], news(9), runtime).save(tmp_path / "saved")
    written = json.loads((tmp_path / "saved" / "classifier.json").read_text())
    assert written["settings"]["generator"] == {
        key: described[key] for key in ("kind", "model", "base_url", "api_key_env")
    }


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"style": "many"}, ConfigError, "'many'"),
        ({"decision": "guess"}, ConfigError, "'guess'"),
        ({"style": "zero_shot", "k": 3}, ConfigError, "no demonstrations"),
        ({"calibrate": True}, ConfigError, "decision: score"),
        ({"demonstrations": "nearest"}, ConfigError, "need a view"),
        ({"decision": "score"}, UnsupportedError, "tells no log-probabilities"),
        ({"verbaliser": {"topics": {}}}, ConfigError, "no task 'topics'"),
        ({"template": "/nowhere.txt"}, ConfigError, "can't read the prompt template"),
    ],
)
def test_what_can_not_be_asked_for(change, error, said, runtime):
    with pytest.raises(error, match=said):
        fit(Prompting(generator=Scripted(rule=reader_rule), **change), [TOPIC], news(9), runtime)


def test_tasks_it_can_not_do(runtime):
    tags = Task(name="tags", classes=("a", "b"), kind="multi")
    generator = Scripted(rule=reader_rule, gives_scores=True)
    with pytest.raises(UnsupportedError, match="'tags'"):
        fit(Prompting(generator=generator), [tags], news(9), runtime)
    with pytest.raises(UnsupportedError, match="intent, slots"):
        method = Prompting(generator=generator, decision="score", k=0)
        fit(method, [INTENT, SLOTS], TRADES, runtime)


def test_what_would_be_asked_is_known_before(runtime):
    generator = Scripted(rule=reader_rule)
    classifier = fit(Prompting(generator=generator, k=2), [TOPIC], news(9), runtime)
    (planned,) = classifier.plan(news(4).texts, runtime)
    assert not generator.asked
    classifier.predict(news(4).texts, runtime)
    assert [(prompt, planned.sampling) for prompt in planned.prompts] == generator.asked
