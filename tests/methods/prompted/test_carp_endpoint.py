"""``carp`` whole against a real server that speaks the OpenAI protocol: what it costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from carp_world import ONE_ROUND, fit
from newsroom import TOPIC, news, reader_rule
from openai_server import OpenAIServer
from scripted_generator import user

from llmembed.errors import BudgetError
from llmembed.evaluation import evaluate
from llmembed.generation import Budget
from llmembed.generation.building import build_generator
from llmembed.metering import Prices
from llmembed.methods import load
from llmembed.methods.prompted.carp import Carp
from llmembed.methods.prompted.voting import Rounds
from llmembed.permissions import Allowed
from llmembed.texts import Corpus


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
    loaded = load(tmp_path / "saved", Allowed(endpoints=(server.url,)))
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
