"""The endpoint generator against a real HTTP server that counts what it would bill: budgets,
retries, giving up, kills."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ask_program import prompts
from endpoint_asking import ask
from openai_server import OpenAIServer

from llmembed.errors import BudgetError, ConfigError, NoAnswerError
from llmembed.generation import (
    Budget,
    EndpointGenerator,
    ResponseCache,
    Sampling,
)
from llmembed.metering import Prices

PROGRAM = Path(__file__).with_name("ask_program.py")


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
        with pytest.raises(NoAnswerError, match=r"no answer to 20 calls in a row.*500.*is kept"):
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
        with pytest.raises(NoAnswerError, match="no answer to 3 calls in a row"):
            generator.generate(prompts(5), Sampling())
        assert len(server.calls) == 15
        with pytest.raises(ConfigError, match="give_up_after"):
            ask(server, give_up_after=0)


def test_scores_are_given_up_too() -> None:
    with OpenAIServer() as server:
        generator = ask(server, scores="echo", retries=0, concurrency=1, give_up_after=4)
        server.fail("500", "", *["503"] * 9)
        with pytest.raises(NoAnswerError, match="no answer to 4 calls in a row"):
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
