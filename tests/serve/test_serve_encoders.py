"""A fine-tuned encoder, which reads texts itself."""

from __future__ import annotations

import pytest
from http_asking import TEXTS, ask
from small_models import TOPIC


@pytest.fixture(scope="module")
def encoder(tiny_bert, tmp_path_factory):
    """A running server of a fine-tuned encoder, which reads texts itself."""
    from small_models import Served, fit_encoder

    folder = fit_encoder(tiny_bert, tmp_path_factory.mktemp("encoder"))
    served = Served({"models": [str(folder)], "api_key_env": None})
    yield served
    served.stop()


def test_an_encoder_answers_as_it_does_by_itself(encoder, tmp_path):
    [seat] = encoder.server.shelf.seats.values()
    expected = seat.classifier.predict(TEXTS)["topic"]
    found = ask(f"{encoder.url}/predict", {"inputs": TEXTS})
    assert [row[0]["label"] for row in found.json()] == [TOPIC.classes[i] for i in expected.labels]
    assert found.json()[0][0]["score"] == pytest.approx(float(expected.scores[0].max()), abs=1e-4)
    counts, _ = seat.classifier.token_counts(TEXTS)
    assert int(found.headers["x-compute-tokens"]) == counts.sum()
    assert float(found.headers["x-energy-joules"]) > 0
    assert ask(f"{encoder.url}/embed", {"inputs": "a"}).status_code == 424


def test_an_encoder_cuts_a_long_text_only_if_asked(encoder):
    long = {"inputs": ["oil", "oil " * 100]}
    found = ask(f"{encoder.url}/predict", long)
    assert (found.status_code, found.json()["error_type"]) == (422, "tokenizer")
    assert "text 1 has 102 tokens, of which encoder reads 64" in found.json()["error"]
    cut = ask(f"{encoder.url}/predict", {**long, "truncate": True})
    assert (cut.status_code, len(cut.json())) == (200, 2)
