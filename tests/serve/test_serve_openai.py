"""OpenAI's embeddings, asked by its own client."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from http_asking import TEXTS, ask


@pytest.fixture(scope="module")
def openai_client(everything):
    openai = pytest.importorskip("openai", reason="the client openai is not installed")
    with openai.OpenAI(base_url=f"{everything.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_openai_client_gets_the_same_rows_as_base64_and_as_floats(everything, openai_client):
    found = openai_client.embeddings.create(model="fused", input=TEXTS)
    floats = openai_client.embeddings.create(model="fused", input=TEXTS, encoding_format="float")
    rows = np.array([item.embedding for item in found.data])
    assert rows == pytest.approx(np.array([item.embedding for item in floats.data]), abs=1e-6)
    embedded = ask(f"{everything.url}/embed", {"inputs": TEXTS, "model": "fused"}).json()
    assert rows == pytest.approx(np.array(embedded), abs=1e-5)
    assert [item.index for item in found.data] == list(range(len(TEXTS)))
    assert found.usage.prompt_tokens == found.usage.total_tokens > len(TEXTS)
    one = openai_client.embeddings.create(model="fused", input=TEXTS[1])
    assert one.data[0].embedding == pytest.approx(found.data[1].embedding, abs=1e-5)


def test_base64_is_little_endian_float32(everything):
    body = {"input": TEXTS[0], "encoding_format": "base64"}
    coded = ask(f"{everything.url}/v1/embeddings", body).json()["data"][0]["embedding"]
    body["encoding_format"] = "float"
    floats = ask(f"{everything.url}/v1/embeddings", body).json()["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(coded), "<f4") == pytest.approx(floats, abs=1e-6)


def test_openai_client_lists_models_and_backbones(openai_client, tiny_spec):
    ids = [model.id for model in openai_client.models.list()]
    assert ids == ["fused", "lexical", "both", tiny_spec.label]
    assert openai_client.models.retrieve(tiny_spec.label).owned_by == "backbone"
    rows = openai_client.embeddings.create(model=tiny_spec.label, input=TEXTS[:2])
    assert len(rows.data[0].embedding) == len(tiny_spec.reads) * 32


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({"model": "gpt", "input": "a"}, 404, "no model 'gpt' is served here"),
        ({"input": "a", "dimensions": 8}, 422, "leave dimensions out"),
        ({"input": [1, 2, 3]}, 422, "send texts"),
        ({"input": [[1, 2], [3]]}, 422, "send texts"),
        ({"input": []}, 422, "at least 1 item"),
        ({"model": "lexical", "input": "a"}, 424, "has no features to give"),
    ],
)
def test_openai_client_is_refused_in_its_own_exceptions(openai_client, body, status, sentence):
    import openai

    with pytest.raises(openai.APIStatusError) as refused:
        openai_client.embeddings.create(**{"model": "fused", **body})
    assert refused.value.status_code == status
    assert sentence in str(refused.value), "what a user sees"
    assert sentence in refused.value.body["message"]
    assert refused.value.type


def test_openai_client_asks_for_a_model_that_is_not_there(openai_client):
    import openai

    with pytest.raises(openai.NotFoundError, match="no model 'gpt' is served here"):
        openai_client.models.retrieve("gpt")


def test_openai_client_asks_for_a_page_that_is_not_there(openai_client):
    import openai

    with pytest.raises(openai.NotFoundError, match="there is no such page here"):
        openai_client.completions.create(model="fused", prompt="a")
