"""Estimates are held against what the run then took."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ask_program import prompts
from generate_program import make
from generate_program import prompts as local_prompts
from openai_server import OpenAIServer
from tiny_llama import save_tiny_llama

from llmembed.generation import (
    EndpointGenerator,
    ResponseCache,
    Sampling,
    estimate,
    estimate_scores,
)
from llmembed.generation.building import build_generator
from llmembed.metering import Prices


def test_an_endpoint_is_estimated_without_being_asked(tmp_path: Path) -> None:
    prices = Prices(usd_per_1000_prompt_tokens=1.0, usd_per_1000_completion_tokens=10.0)
    cache = ResponseCache(tmp_path / "answers.sqlite")
    sampling = Sampling(max_tokens=5)
    with OpenAIServer() as server:
        generator = EndpointGenerator(
            model="m", base_url=server.url, api_key_env=None, cache=cache, prices=prices
        )
        described = build_generator({**generator.to_json(), "prices": "energy-only"})
        assert estimate(described, prompts(3), sampling).usd == 0
        before = estimate(generator, prompts(200), sampling)
        assert server.calls == []
        assert (before.calls, before.cached, before.sampled) == (200, 0, 64)
        assert before.completion_tokens == 1000
        generator.generate(prompts(200), sampling)
        assert server.prompt_tokens <= before.prompt_tokens
        assert prices.cost(generator.paid()) <= before.usd
        assert before.usd == pytest.approx(before.prompt_tokens / 1000 + 10)
        assert before.seconds is None and not before.counts_exactly
        assert json.loads(json.dumps(before.to_json()))["calls"] == 200
        assert "200 calls" in before.lines()[0] and "USD" in before.lines()[-1]
        after = estimate(generator, [*prompts(210), *prompts(10)], sampling)
        assert (after.calls, after.cached) == (10, 200)
        nothing = estimate(generator, prompts(200), sampling)
        assert (nothing.calls, nothing.usd, nothing.prompt_tokens) == (0, 0.0, 0)


def test_a_local_model_is_timed_and_what_it_answered_is_kept(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "answers.sqlite")
    generator = make(save_tiny_llama(tmp_path / "tiny"), cache=cache)
    sampling = Sampling(max_tokens=3)
    found = estimate(generator, local_prompts(100), sampling, sample=100)
    assert cache.count() == found.timed == 4
    assert found.counts_exactly and found.machinery_only
    assert found.prompt_tokens == sum(generator.count_tokens(local_prompts(100)))
    assert found.seconds is not None and found.seconds > 0
    assert found.kwh is not None and found.kwh > 0
    assert found.usd == pytest.approx(found.kwh * 0.065)
    assert any("machinery only" in line for line in found.lines())
    generator.generate(local_prompts(100), sampling)
    used = generator.used()
    assert used.tokens == pytest.approx(found.prompt_tokens + found.completion_tokens, rel=0.05)


def test_scoring_at_an_endpoint_is_a_call_for_each_label(tmp_path: Path) -> None:
    labels = ["earn", "money market"]
    settings = {
        "model": "m",
        "api_key_env": None,
        "scores": "echo",
        "cache": ResponseCache(tmp_path / "answers.sqlite"),
    }
    with OpenAIServer() as server:
        generator = EndpointGenerator(base_url=server.url, **settings)
        before = estimate_scores(generator, [*prompts(80), *prompts(10)], labels)
        assert server.calls == []
        assert (before.calls, before.cached, before.sampled) == (160, 0, 64)
        generator.score(prompts(80), labels)
        assert len(server.billed) == before.calls
        assert server.completion_tokens == before.completion_tokens
        assert server.prompt_tokens <= before.prompt_tokens
        assert generator.prices.cost(generator.paid()) <= before.usd
        # Two texts more, and a label more for those there were.
        after = estimate_scores(generator, prompts(82), [*labels, "ship"])
        assert (after.calls, after.cached) == (80 + 2 * 3, 160)
        generator.score(prompts(82), [*labels, "ship"])
        assert len(server.billed) == before.calls + after.calls


def test_scoring_by_a_local_model_is_timed_as_scoring(tmp_path: Path) -> None:
    cache = ResponseCache(tmp_path / "answers.sqlite")
    generator = make(save_tiny_llama(tmp_path / "tiny"), cache=cache)
    labels = ["earn", "money-fx", "the price of oil"]
    found = estimate_scores(generator, local_prompts(50), labels, sample=50)
    assert cache.count() == 0, "nothing was written"
    assert (found.calls, found.cached, found.timed) == (150, 0, 4)
    assert found.completion_tokens == 0
    assert found.seconds is not None and found.seconds > 0
    generator.used()
    left = estimate_scores(generator, local_prompts(50), labels, timed=0)
    assert (left.calls, left.cached) == (46 * 3, 4 * 3), "those timed are kept for the run"
    generator.score(local_prompts(50), labels)
    assert generator.used().tokens == found.prompt_tokens
    nothing = estimate_scores(generator, local_prompts(50), labels)
    assert (nothing.calls, nothing.prompt_tokens, nothing.seconds) == (0, 0, 0.0)
