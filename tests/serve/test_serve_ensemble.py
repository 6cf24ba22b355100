"""Classifiers in closed form and ensembles are served as any other."""

from __future__ import annotations

import numpy as np
import pytest
import requests
from http_asking import TEXTS
from small_models import TOPIC, Served, news

from llmembed.cluster import LocalRuntime
from llmembed.contract import Silent, Usage
from llmembed.methods import load, mean_of
from llmembed.methods.frozen.joint_fit import JointFit
from llmembed.methods.frozen.kernel import Kernel


@pytest.fixture(scope="module")
def folder(served_models, tmp_path_factory):
    """A kernel over the backbone of ``fused``, and both together."""
    fused, place = load(served_models["fused"]), tmp_path_factory.mktemp("together")
    with LocalRuntime(place / "files") as runtime:
        train, valid = news(60), news(20, seed=1)
        kernel = Kernel(views={"L": fused.backbones["L"]}, joint=JointFit()).fit(
            [TOPIC], train, valid, runtime, Silent()
        )
    mean_of("together", [fused, kernel], Usage()).save(place / "together")
    return place / "together"


def test_an_ensemble_answers_as_it_does_without_a_server(folder):
    here = load(folder)
    expected = here.predict(TEXTS)["topic"]
    features = here.features_of_views(here.reader.read(TEXTS[:2], None)[0], TEXTS[:2])
    served = Served({"models": [str(folder)], "api_key_env": None})
    try:
        # One pass over a text, however many members read it.
        assert len(list(served.server.shelf.hosts)) == 1
        body = {"inputs": TEXTS, "raw_scores": False}
        answer = requests.post(f"{served.url}/predict", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        found = [max(each, key=lambda one: one["score"]) for each in answer.json()]
        names = here.tasks[0].classes
        assert [one["label"] for one in found] == [names[n] for n in expected.labels]
        scores = [one["score"] for one in found]
        np.testing.assert_allclose(scores, expected.scores.max(axis=1), atol=0.02)
        asked = {"inputs": TEXTS[:2], "normalize": False}
        rows = requests.post(f"{served.url}/embed", json=asked, timeout=60).json()
        np.testing.assert_allclose(rows, features, atol=0.05)
    finally:
        served.stop()
