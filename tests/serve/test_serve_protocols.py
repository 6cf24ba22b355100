"""Text Embeddings Inference and vLLM, asked by the clients that people use; curl on all."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
from http_asking import TEXTS, ask
from small_models import TOPIC

# Text Embeddings Inference


def test_predict_takes_one_text_a_batch_and_pairs_of_one(everything, expected):
    labels = [TOPIC.classes[i] for i in expected.labels]
    one = ask(f"{everything.url}/predict", {"inputs": TEXTS[0]})
    assert one.json()[0]["label"] == labels[0]
    assert one.json()[0]["score"] == pytest.approx(float(expected.scores[0].max()), abs=1e-5)
    assert sorted(row["label"] for row in one.json()) == sorted(TOPIC.classes)
    for inputs in (TEXTS, [[text] for text in TEXTS]):
        found = ask(f"{everything.url}/predict", {"inputs": inputs}).json()
        assert [rows[0]["label"] for rows in found] == labels
    raw = ask(f"{everything.url}/predict", {"inputs": TEXTS[0], "raw_scores": True}).json()
    odds = np.exp([row["score"] for row in raw])
    assert odds / odds.sum() == pytest.approx([row["score"] for row in one.json()], abs=1e-5)
    for header in ("x-compute-tokens", "x-total-time", "x-queue-time", "x-inference-time"):
        assert float(one.headers[header]) >= 0


def test_two_tasks_are_answered_in_one_call_or_one_by_name(everything):
    both = ask(f"{everything.url}/predict", {"inputs": TEXTS, "model": "both"}).json()
    assert set(both) == {"topic", "names"}
    assert len(both["names"]) == len(TEXTS)
    alone = {"inputs": TEXTS, "model": "both", "task": "names"}
    assert ask(f"{everything.url}/predict", alone).json() == both["names"]
    wrong = ask(f"{everything.url}/predict", {**alone, "task": "colour"})
    assert wrong.status_code == 422
    assert wrong.json()["error"] == "both has no task 'colour'; it answers topic, names"


def test_hugging_face_client(everything, expected):
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    with hub.InferenceClient() as client:
        found = client.text_classification(TEXTS[0], model=f"{everything.url}/predict")
        assert found[0].label == TOPIC.classes[expected.labels[0]]
        assert len(found) == 3
        first = client.text_classification(TEXTS[0], model=f"{everything.url}/predict", top_k=1)
        assert [row.label for row in first] == [found[0].label]
        rows = client.feature_extraction(TEXTS[:2], model=f"{everything.url}/embed")
    assert rows.shape[0] == 2
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1], abs=1e-5)


# vLLM


def test_classify_answers_as_vllm(everything, expected):
    body = {"model": "fused", "input": TEXTS}
    given = ask(f"{everything.url}/classify", body, headers={"x-request-id": "r-7"})
    found = given.json()
    assert (found["id"], found["object"], found["model"]) == ("classify-r-7", "list", "fused")
    assert [row["index"] for row in found["data"]] == list(range(len(TEXTS)))
    assert [row["label"] for row in found["data"]] == [TOPIC.classes[i] for i in expected.labels]
    probs = np.array([row["probs"] for row in found["data"]])
    assert probs == pytest.approx(expected.scores, abs=1e-5)
    assert {row["num_classes"] for row in found["data"]} == {3}
    assert found["usage"]["prompt_tokens"] == int(given.headers["x-compute-tokens"])
    second = ask(f"{everything.url}/classify", {**body, "model": "both", "task": "names"}).json()
    assert {row["num_classes"] for row in second["data"]} == {2}


# curl


def curl(*arguments, given=None):
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--max-time", "30", *arguments],
        input=given,
        capture_output=True,
        check=True,
    )
    return done.stdout


def test_curl(everything, expected, tmp_path):
    json_type = ("-H", "Content-Type: application/json")
    first = TOPIC.classes[expected.labels[0]]
    body = json.dumps({"inputs": TEXTS[0]})
    assert (
        json.loads(curl(*json_type, "-d", body, f"{everything.url}/predict"))[0]["label"] == first
    )
    body = json.dumps({"input": TEXTS[0]})
    found = json.loads(curl(*json_type, "-d", body, f"{everything.url}/classify"))
    assert found["data"][0]["label"] == first
    file = tmp_path / "texts.csv"
    file.write_text("text\n" + TEXTS[0])
    data = ("-H", "Content-Type: text/csv", "--data-binary", f"@{file}")
    found = json.loads(curl(*data, f"{everything.url}/invocations"))
    assert found["predictions"][0]["topic"] == first
    status = ("-o", "/dev/null", "-w", "%{http_code}")
    for path in ("/health", "/info", "/metrics", "/v2/health/ready", "/v2/models/fused", "/ping"):
        assert curl(*status, f"{everything.url}{path}") == b"200", path


def test_every_interface_knows_no_other_model(everything):
    bodies = {
        "/predict": {"inputs": "a", "model": "x"},
        "/embed": {"inputs": "a", "model": "x"},
        "/v1/embeddings": {"input": "a", "model": "x"},
        "/classify": {"input": "a", "model": "x"},
        "/invocations?model=x": {"inputs": "a"},
    }
    for path, body in bodies.items():
        found = ask(f"{everything.url}{path}", body)
        assert (found.status_code, found.json()["error_type"]) == (404, "model_not_found"), path
