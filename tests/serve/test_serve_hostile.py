"""What no client of good will sends: every answer is a refusal in one sentence, never a 5xx."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
import requests
from small_models import Served

from serve.errors import UnknownModelError

FUZZ = Path(__file__).parents[2] / "benchmarks" / "api_fuzz.py"
POSTS = (
    "/predict",
    "/embed",
    "/v1/embeddings",
    "/classify",
    "/invocations",
    "/v2/models/fused/infer",
)
HALF = b'"\\ud800"'
BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "a number": b"7",
    "null": b"null",
    "a list": b"[]",
    "not UTF-8": b'{"inputs": "\xff", "input": "\xff"}',
    "half a surrogate": b'{"inputs": %b, "input": %b, "model": %b}' % (HALF, HALF, HALF),
    "half a surrogate as model": b'{"inputs": "a", "input": "a", "model": %b}' % HALF,
    "half a surrogate as task": b'{"inputs": "a", "input": "a", "task": %b}' % HALF,
    "nested without end": b"[" * 100_000,
    "nested and closed": b'{"inputs":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "nested input": b'{"input":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "nested objects": b'{"inputs":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001,
    "a huge number": b'{"inputs": 1%b, "input": 1%b}' % (b"0" * 9000, b"0" * 9000),
    "NaN": b'{"inputs": NaN, "input": NaN}',
    "NaN as threshold": b'{"inputs": "a", "unknown": NaN}',
    "infinite top_k": b'{"inputs": "a", "parameters": {"top_k": 1e999}}',
    "huge top_k": b'{"inputs": "a", "parameters": {"top_k": %b}}' % (b"9" * 400),
    "the same key twice": b'{"inputs": "a", "inputs": 3, "input": "a", "input": 3}',
    "no texts": b'{"inputs": [], "input": []}',
    "a list of nothing": b'{"inputs": [[]], "input": [[]]}',
    "a text and a number": b'{"inputs": ["a", 1], "input": ["a", 1]}',
    "a shape beyond measure": b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": '
    b'[99999999999999999999, 99999999999999999999], "data": ["a"]}]}',
    "a size below nothing": b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], '
    b'"parameters": {"binary_data_size": -1}}]}',
}
PASSED_OVER = {
    "half a surrogate as task": ("/embed", "/v1/embeddings", "/invocations"),
    "NaN as threshold": ("/embed", "/invocations"),
    "infinite top_k": ("/embed", "/invocations"),
    "huge top_k": ("/predict", "/embed", "/invocations"),
}
"""Keys of one interface mean nothing to another."""
WELL = {
    "NUL": "a\0b",
    "controls": "".join(map(chr, range(32))),
    "beyond the basic plane": "𝔘𝔫𝔦 🌾",
    "right to left": "\u202ea\u2066",
    "combining": "e" + "\u0301" * 500,
    "not a character": "\uffff\ufdd0",
}


def refusal(answer):
    """The sentence of a refusal, checked to be one."""
    assert 400 <= answer.status_code < 500, answer.text
    found = answer.json()
    assert set(found) == {"error", "error_type"}
    assert "\n" not in found["error"]
    assert "Traceback" not in found["error"]
    return found["error"]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("body", BODIES)
def test_bodies_that_are_none(everything, path, body):
    answer = requests.post(
        everything.url + path,
        data=BODIES[body],
        headers={"content-type": "application/json"},
        timeout=30,
    )
    if answer.status_code == 200:
        assert path in PASSED_OVER.get(body, ())
        answer.json()
    else:
        assert refusal(answer)


def asked_of_all(given):
    """Path -> a body that holds ``given`` and a text in order."""
    bodies = {
        "/predict": {"inputs": [given, "a"]},
        "/embed": {"inputs": [given, "a"], "truncate": True},
        "/v1/embeddings": {"input": [given, "a"], "truncate": True},
        "/classify": {"input": [given, "a"], "truncate": True},
        "/invocations": {"inputs": [given, "a"], "params": {"truncate": True}},
        "/v2/models/fused/infer": {
            "parameters": {"truncate": True},
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": [given, "a"]}],
        },
    }
    bodies["/predict"]["truncate"] = True
    return bodies


@pytest.mark.parametrize("text", ["", " \t\n", "\u2003\u00a0"])
def test_texts_of_nothing_are_refused_everywhere(everything, text):
    for path, body in asked_of_all(text).items():
        answer = requests.post(everything.url + path, json=body, timeout=30)
        assert answer.status_code == 422, (path, answer.text)
        assert "text 0 is empty or white space only" in answer.text


def test_what_is_no_json_is_called_so(everything):
    for body in (b"{", b'{"inputs": "a"', b"inputs=a"):
        answer = requests.post(
            f"{everything.url}/predict",
            data=body,
            headers={"content-type": "application/json"},
            timeout=30,
        )
        assert answer.status_code == 422
        assert re.fullmatch(r"the body is not JSON \(character \d+\)", refusal(answer))


@pytest.mark.parametrize("text", WELL)
def test_odd_texts_are_answered(everything, text):
    for path, body in asked_of_all(WELL[text]).items():
        answer = requests.post(everything.url + path, json=body, timeout=30)
        assert answer.status_code == 200, (path, answer.text)
        json.loads(answer.text)


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data", "\xe9"])
@pytest.mark.parametrize("path", POSTS[:5])
def test_bodies_of_another_type(everything, path, kind):
    answer = requests.post(
        everything.url + path,
        data=b'{"inputs": "a", "input": "a"}',
        headers={"content-type": kind.encode("latin-1")},
        timeout=30,
    )
    assert refusal(answer)


@pytest.mark.parametrize(
    "model", ["x", "fused/999999999999999999", "fused@nobody", "a/b/c", "", "%00", "٣", "x" * 9000]
)
def test_names_of_models_that_are_none(everything, model):
    for path in (
        "/v2/models/{}",
        "/v2/models/{}/ready",
        "/v1/models/{}",
        "/v2/models/{}/versions/٣",
    ):
        answer = requests.get(everything.url + path.format(model), timeout=30)
        assert answer.status_code in (200, 404, 405), answer.text
    answer = requests.post(
        f"{everything.url}/predict", json={"inputs": "a", "model": model}, timeout=30
    )
    assert answer.status_code == (200 if model == "" else 422 if len(model) > 256 else 404)


def test_unknown_pages_and_methods_are_refused_in_the_same_shape(everything):
    assert refusal(requests.get(f"{everything.url}/nothing", timeout=9))
    assert refusal(requests.get(f"{everything.url}/predict", timeout=9))
    assert refusal(requests.delete(f"{everything.url}/v2/models/fused/infer", timeout=9))


def test_a_model_may_be_called_anything(served_models, tmp_path):
    folder = tmp_path / "große модель 🌾"
    shutil.copytree(served_models["lexical"], folder)
    served = Served({"models": [str(folder)], "api_key_env": None})
    try:
        answer = requests.post(f"{served.url}/predict", json={"inputs": "a"}, timeout=30)
        assert answer.status_code == 200
        assert unquote(answer.headers["x-model"]) == folder.name
        body = {"inputs": "a", "model": folder.name}
        assert requests.post(f"{served.url}/predict", json=body, timeout=30).status_code == 200
        page = f"{served.url}/v2/models/{quote(folder.name)}"
        assert requests.get(page, timeout=30).json()["name"] == folder.name
    finally:
        served.stop()


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """A shelf for a registered model of no versions."""
    from llmembed.tracking import Tracking
    from serve.model.shelf import Shelf
    from serve.settings import load_settings

    files = tmp_path_factory.mktemp("registry")
    Tracking(files=files).client.create_registered_model("r8")
    return Shelf(load_settings({"models": ["r8"], "files": str(files)}), lambda spec: None), files


@pytest.mark.parametrize(
    "model",
    [
        *("r8/0", "r8/3", "models:/r8/3", "r8/٣", "r8/3\n", f"r8/{'9' * 30}", f"r8/{'9' * 200}"),
        *("r8@nobody", "r8@a b", "r8@\0", "r8@latest", "r8@v1", "r8@é'\";--", "r8@" + "x" * 250),
        *("other/3", "other", "a/b/c", "models:/"),
    ],
)
def test_versions_that_are_none(registry, model, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shelf, files = registry
    with pytest.raises(UnknownModelError) as refused:
        asyncio.run(shelf.get(model))
    assert str(files) not in str(refused.value)
    assert "champion" not in str(refused.value)


def test_json_that_json_cannot_say():
    from serve.http.bodies import Json

    given = {"a": [float("nan"), 1.5, float("inf")], "b": "\ud800", "\udfff": None}
    assert json.loads(Json(given).body) == {"a": [None, 1.5, None], "b": "?", "?": None}


@pytest.mark.slow
def test_requests_made_from_our_openapi_page(everything, tmp_path):
    """A few hundred; ``benchmarks/api_fuzz.py`` makes more than 5,000."""
    pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    report = tmp_path / "fuzz.json"
    done = subprocess.run(
        [
            *(sys.executable, str(FUZZ), "--url", everything.url, "--examples", "16"),
            *("--phases", "examples,fuzzing", "--seed", "3", "--json", str(report)),
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["cases"] >= 250
    assert found["server_errors"] == 0
