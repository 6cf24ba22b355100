"""The endpoint generator against a real HTTP server: answers, scores, settings, secrets."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ask_program import prompts
from endpoint_asking import ask
from openai_server import OpenAIServer, logprob
from tiny_llama import save_tiny_llama

from llmembed.errors import BudgetError, ConfigError, ModelError, UnsupportedError, UserError
from llmembed.generation import (
    Budget,
    EndpointGenerator,
    Message,
    ResponseCache,
    Sampling,
)
from llmembed.generation.building import build_generator
from llmembed.generation.cache import answer_key

SECRET = "sk-very-secret-4711"


def test_answers_come_in_order_and_tokens_are_the_servers() -> None:
    with OpenAIServer(delay_seconds=0.02) as server:
        generator = ask(server, concurrency=8)
        answers = generator.generate([*prompts(30), *prompts(5)], Sampling(max_tokens=8))
        assert [a.text for a in answers] == [f"answer {i}" for i in [*range(30), *range(5)]]
        assert {a.finish for a in answers} == {"stop"}
        assert not any(a.cached for a in answers)
        assert len(server.calls) == 30  # equal prompts once
        assert server.most_at_once == 8
        paid, used = generator.paid(), generator.used()
        assert (paid.prompt_tokens, paid.completion_tokens, paid.calls) == (
            server.prompt_tokens,
            server.completion_tokens,
            30,
        )
        assert used == paid
        assert used.seconds > 0.02 * 30 / 8 * 0.9
        assert generator.used().calls == 0
        asked = server.calls[0].request
        assert (asked["temperature"], asked["max_tokens"], asked["seed"]) == (0.0, 8, 0)
        assert generator.name == f"scripted@127.0.0.1:{server.port}"


def test_max_tokens_stop_and_logprobs() -> None:
    long = [(Message(role="user", content="one two three four END five"),)]
    with OpenAIServer() as server:
        generator = ask(server)
        (cut,) = generator.generate(long, Sampling(max_tokens=2))
        assert (cut.text, cut.finish, cut.completion_tokens) == ("one two", "length", 2)
        sampling = Sampling(max_tokens=20, stop=(" END",), logprobs=True)
        (stopped,) = generator.generate(long, sampling)
        assert (stopped.text, stopped.finish) == ("one two three four", "stop")
        assert stopped.logprobs is not None
        assert [token for token, _ in stopped.logprobs] == ["one", " two", " three", " four"]
        assert stopped.logprobs[0][1] == pytest.approx(logprob("one"))


def test_a_second_run_asks_nothing_and_still_bears_its_cost(tmp_path: Path) -> None:
    path = tmp_path / "answers.sqlite"
    sampling = Sampling(logprobs=True)
    with OpenAIServer() as server:
        first = ask(server, cache=ResponseCache(path))
        answers = first.generate(prompts(10), sampling)
        second = ask(server, cache=ResponseCache(path))
        assert second.missing(prompts(12), sampling) == prompts(12)[10:]
        again = second.generate(prompts(10), sampling)
        assert len(server.calls) == 10
        assert all(a.cached for a in again)
        assert [(a.text, a.logprobs, a.prompt_tokens) for a in again] == [
            (a.text, a.logprobs, a.prompt_tokens) for a in answers
        ]
        used = second.used()
        assert used.prompt_tokens == server.prompt_tokens
        assert used.seconds == pytest.approx(first.used().seconds)
        assert second.paid().calls == 0 and second.paid().seconds == 0
        # Other parameters, rounds and models are other answers.
        second.generate(prompts(1), Sampling(logprobs=True, seed=1))
        second.generate(prompts(1), Sampling(logprobs=True, temperature=0.7))
        ask(server, cache=ResponseCache(path), model="other").generate(prompts(1), sampling)
        assert len(server.calls) == 13


@pytest.mark.parametrize(
    "fault, kind, words",
    [
        ("401", ConfigError, "the key in SOME_KEY"),
        ("404", ModelError, "status 404"),
        ("400", UserError, "status 400"),
        ("quota", UserError, "quota"),
    ],
)
def test_a_refusal_is_one_sentence_without_the_key(
    fault: str,
    kind: type[UserError],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("SOME_KEY", SECRET)
    caplog.set_level(logging.DEBUG)
    for name in ("openai", "httpx2", "httpcore2", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    cache = ResponseCache(tmp_path / "answers.sqlite")
    with OpenAIServer(api_key=SECRET) as server:
        generator = ask(server, api_key_env="SOME_KEY", cache=cache, concurrency=1)
        server.fail("500", fault)
        with pytest.raises(kind, match=words) as caught:
            generator.generate(prompts(4), Sampling())
        assert server.calls[0].authorization == f"Bearer {SECRET}"
        assert len(server.calls) == 2  # not asked again
    said: list[str] = [repr(generator), repr(vars(generator)), caplog.text]
    error: BaseException | None = caught.value
    while error is not None:
        said += [str(error), repr(error), repr(vars(error))]
        error = error.__cause__ or error.__context__
    for record in caplog.records:
        said.append(repr(vars(record)))
    cache.close()
    held = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert cache.count() == 0
    assert SECRET not in "".join(said)
    assert SECRET.encode() not in held


def test_settings_are_checked_and_never_repeat_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(**settings: Any) -> EndpointGenerator:
        return EndpointGenerator(**{"model": "m", "base_url": "http://127.0.0.1:9/v1", **settings})

    with pytest.raises(ConfigError) as caught:
        make(api_key_env=SECRET)
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        make(base_url=f"http://user:{SECRET}@host/v1")
    assert SECRET not in str(caught.value)
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(ConfigError, match="SOME_KEY is not set"):
        make(api_key_env="SOME_KEY").generate(prompts(1), Sampling())
    with pytest.raises(UnsupportedError, match="log-probabilities"):
        make().score(prompts(1), ["a", "b"])


def test_its_description_makes_it_again_without_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", SECRET)
    with OpenAIServer(api_key=SECRET) as server:
        first = ask(server, api_key_env="SOME_KEY", retries=2, context=900, scores="echo")
        first.generate(prompts(1), Sampling())
        described = first.to_json()
        assert SECRET not in str(described)
        again = build_generator(described)
        assert (again.name, again.context, again.gives_scores) == (first.name, 900, True)
        assert again.generate(prompts(1), Sampling())[0].text == "answer 0"
        keyless = ask(server).to_json()
        assert keyless["api_key_env"] is None


def test_scores_by_echo(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "answers.sqlite")
    with OpenAIServer() as server:
        generator = ask(server, scores="echo", cache=cache)
        assert generator.gives_scores
        candidates = ["earn", "money market", "earn"]
        scores = generator.score(prompts(3), candidates)
        expected = [logprob("earn"), logprob("money") + logprob("market"), logprob("earn")]
        np.testing.assert_allclose(scores, np.tile(np.float32(expected), (3, 1)), rtol=1e-6)
        assert len(server.calls) == 6
        assert generator.paid().prompt_tokens == server.prompt_tokens
        np.testing.assert_array_equal(
            ask(server, scores="echo", cache=cache).score(prompts(3), candidates), scores
        )
        assert len(server.calls) == 6


def test_scores_of_another_text_or_path_are_not_shared(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "answers.sqlite")
    tokenizer = str(save_tiny_llama(tmp_path / "tiny"))
    prompt = [(Message(role="user", content="hello"), Message(role="user", content="you"))]
    parts = [(Message(role="user", content="hello\n\nyou"),)]
    with OpenAIServer() as server:
        for more, calls in (({}, 1), ({"tokenizer": tokenizer}, 2), ({}, 2)):
            ask(server, scores="echo", cache=cache, **more).score(prompt, ["earn"])
            assert len(server.calls) == calls, more
        ask(server, scores="echo", cache=cache).score(parts, ["earn"])
        assert len(server.calls) == 2, "the text that is sent is the same"
    teams = [
        EndpointGenerator(model="m", base_url=f"https://gw/{team}/v1{end}", api_key_env=None)
        for team, end in (("a", ""), ("a", "/"), ("b", ""))
    ]
    first, same, other = (answer_key(team.identity, prompt[0], Sampling()) for team in teams)
    assert first == same != other


def test_it_works_inside_a_running_loop() -> None:
    async def notebook(generator: EndpointGenerator) -> list[str]:
        return [answer.text for answer in generator.generate(prompts(3), Sampling())]

    with OpenAIServer() as server:
        assert asyncio.run(notebook(ask(server))) == ["answer 0", "answer 1", "answer 2"]
        with pytest.raises(BudgetError):
            asyncio.run(notebook(ask(server, budget=Budget(tokens=5))))


def test_tokens_without_usage_are_the_reservation() -> None:
    with OpenAIServer(usage=False) as server:
        generator = ask(server)
        (answer,) = generator.generate(prompts(1), Sampling(max_tokens=7))
        assert answer.completion_tokens == 7
        assert answer.prompt_tokens >= server.prompt_tokens
        assert generator.count_tokens(prompts(1))[0] > server.prompt_tokens
        assert not generator.counts_exactly
