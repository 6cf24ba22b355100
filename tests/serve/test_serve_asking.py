"""A served classifier that asks an endpoint: what a client hears while that is away."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import requests
from openai_server import OpenAIServer
from small_server import serving

from llmembed.cluster import LocalRuntime
from llmembed.contract import Examples, Silent, Task
from llmembed.generation.building import build_generator
from llmembed.methods.prompted.prompt import Prompting

TOPIC = Task(name="topic", classes=("grain", "oil"))


def reader(messages: list[dict[str, str]]) -> str:
    text = messages[-1]["content"].rsplit("<<< text", 1)[-1]
    return "oil" if "oil" in text else "grain"


@pytest.fixture(scope="module")
def endpoint():
    with OpenAIServer(reader) as server:
        yield server


@pytest.fixture(scope="module")
def url(endpoint, tmp_path_factory):
    place: Path = tmp_path_factory.mktemp("asking")
    described = {"kind": "endpoint", "model": "m", "base_url": endpoint.url, "api_key_env": None}
    generator = build_generator({**described, "give_up_after": 6})
    empty = Examples(texts=[], labels={"topic": np.zeros(0, dtype=np.int64)})
    method = Prompting(generator=generator, style="zero_shot", max_answer_tokens=4)
    method.fit([TOPIC], empty, empty, LocalRuntime(place), Silent()).save(place / "model")
    allowed = {"endpoints": [endpoint.url]}
    with serving([place / "model"], place / "files", limits={"seconds": 4}, allow=allowed) as url:
        yield url


def ask(url: str, path: str, body: object) -> requests.Response:
    return requests.post(url + path, json=body, timeout=30)


def unanswered(url: str) -> float:
    for line in requests.get(f"{url}/metrics", timeout=9).text.splitlines():
        if line.startswith("llmembed_unanswered_total"):
            return float(line.rpartition(" ")[2])
    return 0.0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"inputs": "the oil {}"}),
        ("/predict", {"inputs": ["the oil {}", "the corn {}"]}),
        ("/classify", {"input": "the oil {}"}),
        ("/invocations", {"inputs": ["the oil {}"]}),
    ],
)
def test_no_answer_of_the_endpoint_is_503_and_counted(path, body, endpoint, url):
    (field,) = body

    def filled(word: str) -> dict[str, object]:
        texts = body[field]
        asked = texts.format(word) if isinstance(texts, str) else [t.format(word) for t in texts]
        return {field: asked}

    before = unanswered(url)
    endpoint.fault_of = lambda _: "500"
    began = time.monotonic()
    found = ask(url, path, filled(f"of {path}"))
    assert time.monotonic() - began < 4, "a client does not wait for many tries"
    assert found.status_code == 503
    assert int(found.headers["Retry-After"]) >= 1
    if path != "/invocations":
        assert found.json()["error_type"] == "backend"
    assert "gave no answer" in found.text and "refused for 500" not in found.text
    assert unanswered(url) > before
    assert requests.get(f"{url}/health", timeout=9).status_code == 200
    endpoint.fault_of = lambda _: ""
    found = ask(url, path, filled(f"of {path}"))
    assert found.status_code == 200 and "oil" in found.text


def test_an_endpoint_that_limits_its_calls_says_when_to_come_again(endpoint, url):
    endpoint.again = "90s"
    endpoint.fault_of = lambda _: "limited"
    found = ask(url, "/predict", {"inputs": "oil for tomorrow"})
    assert (found.status_code, found.headers["Retry-After"]) == (503, "90")
    endpoint.fault_of = lambda _: ""
    assert ask(url, "/predict", {"inputs": "oil for tomorrow"}).status_code == 200


def test_given_up_it_is_still_503_and_comes_back(endpoint, url):
    endpoint.fault_of = lambda _: "500"
    texts = [f"oil of well {number}" for number in range(12)]
    for _ in range(2):
        assert ask(url, "/predict", {"inputs": texts}).status_code == 503
    endpoint.fault_of = lambda _: ""
    found = ask(url, "/predict", {"inputs": texts})
    assert found.status_code == 200 and len(found.json()) == 12
