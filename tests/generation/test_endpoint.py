"""The endpoint generator against a real HTTP server that counts what it would bill."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ask_program import prompts
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
from llmembed.metering import Prices

SECRET = "sk-very-secret-4711"
PROGRAM = Path(__file__).with_name("ask_program.py")


def ask(server: OpenAIServer, **settings: Any) -> EndpointGenerator:
    return EndpointGenerator(
        **{"model": "scripted", "base_url": server.url, "api_key_env": None, **settings}
    )


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


@pytest.mark.parametrize("limit", ["tokens", "usd"])
def test_32_parallel_calls_never_exceed_the_budget(tmp_path: Path, limit: str) -> None:
    # Each call takes 10 tokens of prompt and 2 of answer here, and reserves many more.
    prices = Prices(usd_per_1000_prompt_tokens=1.0, usd_per_1000_completion_tokens=3.0)
    budget = (
        Budget(tokens=2000, prices=prices) if limit == "tokens" else Budget(usd=2.5, prices=prices)
    )
    cache = ResponseCache(tmp_path / "answers.sqlite")
    with OpenAIServer(delay_seconds=0.01) as server:
        generator = ask(server, concurrency=32, budget=budget, cache=cache)
        server.fail(*["", "cut", "", "500", "429", "nonsense"] * 2)
        with pytest.raises(BudgetError, match="what was answered is kept"):
            generator.generate(prompts(400), Sampling(max_tokens=16))
        billed = server.prompt_tokens + server.completion_tokens
        cost = server.prompt_tokens * 0.001 + server.completion_tokens * 0.003
        spending = budget.spending
        assert spending.reserved.prompt_tokens == 0
        assert spending.settled.prompt_tokens == generator.paid().prompt_tokens
        if limit == "tokens":
            assert billed <= 2000
            total = spending.total
            # Stopped because one more reservation did not fit, not much earlier.
            assert total.prompt_tokens + total.completion_tokens > 2000 - 200
        else:
            assert cost <= 2.5
            assert 2.5 - 0.25 < budget.spent_usd <= 2.5
        # Cut and nonsensical answers were billed; their whole reservations stay spent.
        assert spending.unconfirmed.calls == 4
        answered = spending.settled.calls
        assert cache.count() == answered > 20
        # With more money only the rest is asked.
        before = len(server.calls)
        ask(server, cache=cache).generate(prompts(400), Sampling(max_tokens=16))
        assert len(server.calls) - before == 400 - answered


def test_a_budget_too_small_for_one_call_sends_none() -> None:
    with OpenAIServer() as server:
        generator = ask(server, budget=Budget(tokens=20))
        with pytest.raises(BudgetError):
            generator.generate(prompts(3), Sampling(max_tokens=16))
        assert server.calls == []


@pytest.mark.parametrize("fault", ["429", "500", "503", "cut", "hang", "nonsense", "empty"])
def test_what_may_pass_is_asked_again(fault: str) -> None:
    with OpenAIServer(retry_after="0.2", hang_seconds=2.0) as server:
        generator = ask(server, timeout_seconds=0.5, concurrency=1)
        server.fail(fault)
        began = time.monotonic()
        (answer,) = generator.generate(prompts(1), Sampling())
        assert (answer.text, answer.finish) == ("answer 0", "stop")
        assert [call.fault for call in server.calls] == [fault, ""]
        if fault == "429":
            assert server.calls[1].at - server.calls[0].at >= 0.2
        assert time.monotonic() - began < 3
        # What may have been billed is not forgotten.
        unconfirmed = generator.budget.spending.unconfirmed
        assert unconfirmed.calls == (1 if fault in ("cut", "hang", "nonsense", "empty") else 0)
        spent = generator.budget.spending.total
        assert spent.prompt_tokens >= server.prompt_tokens
        assert spent.completion_tokens >= server.completion_tokens


def test_retries_are_bounded_and_a_failure_is_not_cached(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "answers.sqlite")
    with OpenAIServer() as server:
        generator = ask(server, retries=2, concurrency=1, cache=cache)
        server.fail("", "500", "500", "500")
        good, bad = generator.generate(prompts(2), Sampling())
        assert good.finish == "stop"
        assert (bad.text, bad.finish, bad.completion_tokens) == ("", "failed", 0)
        assert bad.reason is not None and "500" in bad.reason and "3 tries" in bad.reason
        assert len(server.calls) == 4 and cache.count() == 1
        assert generator.generate(prompts(2), Sampling())[1].text == "answer 1"


def test_after_twenty_calls_in_a_row_without_an_answer_the_run_stops(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "answers.sqlite")
    with OpenAIServer() as server:
        server.fail(*[""] * 30, *["500"] * 500)
        generator = ask(server, retries=1, concurrency=4, cache=cache)
        with pytest.raises(ModelError, match=r"no answer to 20 calls in a row.*500.*is kept"):
            generator.generate(prompts(200), Sampling())
        assert cache.count() == generator.paid().calls == 30
        assert 30 + 2 * 20 <= len(server.calls) <= 30 + 2 * 23  # those under way may end
        server.faults.clear()
        before = len(server.calls)
        assert all(a.finish == "stop" for a in generator.generate(prompts(200), Sampling()))
        assert len(server.calls) - before == 170


def test_an_answer_in_between_goes_on_and_runs_are_counted_together() -> None:
    with OpenAIServer() as server:
        generator = ask(server, retries=0, concurrency=1, give_up_after=3)
        server.fail(*["500", "500", ""] * 4)
        found = generator.generate(prompts(12), Sampling())
        assert [a.finish for a in found] == ["failed", "failed", "stop"] * 4
        server.fail("500", "500", "500")
        assert [a.finish for a in generator.generate(prompts(2), Sampling())] == ["failed"] * 2
        with pytest.raises(ModelError, match="no answer to 3 calls in a row"):
            generator.generate(prompts(5), Sampling())
        assert len(server.calls) == 15
        with pytest.raises(ConfigError, match="give_up_after"):
            ask(server, give_up_after=0)


def test_scores_are_given_up_too() -> None:
    with OpenAIServer() as server:
        generator = ask(server, scores="echo", retries=0, concurrency=1, give_up_after=4)
        server.fail("500", "", *["503"] * 9)
        with pytest.raises(ModelError, match="no answer to 4 calls in a row"):
            generator.score(prompts(9), ["earn", "ship"])
        assert len(server.calls) == 6


def test_an_endpoint_that_can_not_be_reached_has_spent_nothing() -> None:
    with OpenAIServer() as server:
        pass
    unreachable = EndpointGenerator(
        model="m", base_url=server.url, api_key_env=None, retries=1, concurrency=1
    )
    (answer,) = unreachable.generate(prompts(1), Sampling())
    assert answer.finish == "failed" and "reached" in (answer.reason or "")
    assert unreachable.budget.spending.total.prompt_tokens == 0


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
        server.fail("", "500", "", fault)
        with pytest.raises(kind, match=words) as caught:
            generator.generate(prompts(4), Sampling())
        assert server.calls[0].authorization == f"Bearer {SECRET}"
        assert len(server.calls) == 4  # not asked again
    said: list[str] = [repr(generator), repr(vars(generator)), caplog.text]
    error: BaseException | None = caught.value
    while error is not None:
        said += [str(error), repr(error), repr(vars(error))]
        error = error.__cause__ or error.__context__
    for record in caplog.records:
        said.append(repr(vars(record)))
    cache.close()
    held = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert cache.count() == 2
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


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle_and_resumed_without_paying_twice(tmp_path: Path, how: int) -> None:
    path = tmp_path / "answers.sqlite"
    with OpenAIServer(delay_seconds=0.05) as server:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), server.url, str(path), "60"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        end = time.monotonic() + 60
        while len(server.calls) < 24 and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(how)
        process.wait(20)
        assert process.returncode != 0
        time.sleep(0.2)
        first = len(server.calls)
        assert 24 <= first < 60
        # Any SQLite shell reads what is kept.
        with sqlite3.connect(path) as connection:
            kept = connection.execute("SELECT key, text FROM answers").fetchall()
        assert first - 4 <= len(kept) < 60  # all but those under way
        answers = ask(server, cache=ResponseCache(path), model="scripted").generate(
            prompts(60), Sampling()
        )
        assert len(server.calls) - first == 60 - len(kept)
        assert [a.text for a in answers] == [f"answer {i}" for i in range(60)]
        # Nothing that was kept was asked a second time.
        texts = [call.messages[1]["content"] for call in server.calls]
        asked_twice = {text for text in texts if texts.count(text) > 1}
        assert len(asked_twice) <= 4
