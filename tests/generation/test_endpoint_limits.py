"""The endpoint generator against rate limits: waited for by time, with fewer calls at once."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from ask_program import prompts
from endpoint_asking import ask
from openai_server import OpenAIServer

from llmembed.errors import NoAnswerError
from llmembed.generation import Sampling
from llmembed.generation.waits import told_wait, wait_in_words


def until(seconds: float, fault: str):
    """That fault for every call in the first ``seconds``."""
    began: list[float] = []

    def fault_of(_: object) -> str:
        began.append(time.monotonic())
        return fault if began[-1] - began[0] < seconds else ""

    return fault_of


@pytest.mark.parametrize("fault", ["429", "limited"])
def test_limits_are_waited_for_by_time_and_not_by_tries(fault: str) -> None:
    with OpenAIServer(retry_after="0.1", again="100ms") as server:
        server.fault_of = until(0.7, fault)
        generator = ask(server, retries=0, concurrency=4)
        answers = generator.generate(prompts(8), Sampling())
        assert [a.text for a in answers] == [f"answer {i}" for i in range(8)]
        refused = [call for call in server.calls if call.fault]
        # 4 at first; then as many as are let through, at least 0.1 s apart.
        assert 4 + 3 <= len(refused) <= 4 + 2 + 7
        assert generator.budget.spending.unconfirmed.calls == 0
        # What was said is obeyed: after the first four nothing for 0.1 s.
        assert server.calls[4].at - server.calls[3].at >= 0.09


def test_a_limit_that_says_nothing_is_waited_for() -> None:
    with OpenAIServer(again="a while") as server:
        server.fault_of = until(0.6, "limited")
        answers = ask(server, retries=0).generate(prompts(3), Sampling())
        assert [a.finish for a in answers] == ["stop"] * 3


def test_fewer_calls_are_sent_at_once_after_a_limit_and_more_again_later() -> None:
    most = 2
    with OpenAIServer(retry_after="0.05", delay_seconds=0.02) as server:
        server.fault_of = lambda _: "429" if server.at_once >= most else ""
        generator = ask(server, retries=0, concurrency=16)
        answers = generator.generate(prompts(60), Sampling())
        assert {a.finish for a in answers} == {"stop"}
        # 16 at once met the limit; learnt from, it is met again only when one more is tried, where
        # without learning each of 60 would meet it again and again.
        assert len([call for call in server.calls if call.fault]) < 60
        most = 99
        server.most_at_once = 0
        generator.generate(prompts(160)[60:], Sampling())
        assert server.most_at_once > 4


def test_a_limit_beyond_the_patience_ends_the_run_in_the_endpoints_words() -> None:
    with OpenAIServer(again="6h2m") as server:
        server.fault_of = lambda _: "limited"
        with pytest.raises(NoAnswerError, match=r"try again in 6h2m.*21720|2.17e\+04") as caught:
            ask(server).generate(prompts(3), Sampling())
        assert caught.value.wait_seconds == 6 * 3600 + 120
        began = time.monotonic()
        server.again = "200ms"
        with pytest.raises(NoAnswerError, match="patience_seconds"):
            ask(server, patience_seconds=0.5).generate(prompts(3), Sampling())
        assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("headers", "words", "seconds"),
    [
        ({"retry-after": "7"}, "try again in 25s", 7.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, "", 0.25),
        ({}, "Please try again in 25s. Visit https://host", 25.0),
        ({}, "Please try again in 6ms.", 0.006),
        ({}, "try again in 1m12.5s", 72.5),
        ({}, "Please retry after 20 seconds.", 20.0),
        ({}, "Please retry in 32.1s.", 32.1),
        ({}, "slow down", None),
        ({"x-ratelimit-reset-tokens": "6m0s"}, "", 360.0),
        ({"x-ratelimit-reset-requests": "120ms", "x-ratelimit-reset-tokens": "25s"}, "", 0.12),
        (
            {
                "x-ratelimit-reset-requests": "120ms",
                "x-ratelimit-reset-tokens": "25s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-remaining-requests": "12",
            },
            "",
            25.0,
        ),
        ({"x-ratelimit-reset": "3.5"}, "", 3.5),
    ],
)
def test_how_long_an_endpoint_asks_to_wait(headers, words, seconds) -> None:
    assert told_wait(headers, words) == (seconds if seconds is None else pytest.approx(seconds))


def test_moments_are_spans_from_now() -> None:
    soon = time.time() + 30
    iso = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(soon))
    for name, value in (
        ("retry-after", formatdate(soon, usegmt=True)),
        ("x-ratelimit-reset", f"{soon:.0f}"),
        ("x-ratelimit-reset", f"{soon * 1000:.0f}"),
        ("anthropic-ratelimit-tokens-reset", iso),
    ):
        assert told_wait({name: value}, "") == pytest.approx(30, abs=2), (name, value)
    assert wait_in_words("") is None
