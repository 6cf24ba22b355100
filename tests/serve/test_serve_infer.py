"""The Open Inference Protocol, asked by Triton's client."""

from __future__ import annotations

import json

import numpy as np
import pytest
import requests
from http_asking import TEXTS, ask
from small_models import TOPIC

from serve.http.tensors import texts_of_raw


@pytest.fixture(scope="module")
def triton(everything):
    http = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    with http.InferenceServerClient(f"127.0.0.1:{everything.port}") as client:
        yield client


def texts_input(http, texts, **options):
    given = http.InferInput("text", [len(texts)], "BYTES")
    given.set_data_from_numpy(np.array([t.encode() for t in texts], dtype=object), **options)
    return given


def test_triton_client_reads_health_and_metadata(triton):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("fused")
    assert not triton.is_model_ready("nobody")
    assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
    found = triton.get_model_metadata("fused")
    assert [(o["name"], o["datatype"], o["shape"]) for o in found["outputs"]] == [
        ("label", "BYTES", [-1]),
        ("score", "FP32", [-1]),
        ("probs", "FP32", [-1, 3]),
    ]
    assert found["outputs"][2]["parameters"]["classes"] == list(TOPIC.classes)
    names = [output["name"] for output in triton.get_model_metadata("both")["outputs"]]
    assert names == ["topic_label", "topic_score", "topic_probs", "names_label", "names_probs"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_triton_client_infers_in_binary_and_json(triton, expected, binary_in, binary_out):
    import tritonclient.http as http

    outputs = None
    if binary_out is not None:
        outputs = [
            http.InferRequestedOutput(name, binary_data=binary_out)
            for name in ("probs", "label", "score")
        ]
    given = [texts_input(http, TEXTS, binary_data=binary_in)]
    found = triton.infer("fused", given, outputs=outputs, request_id="r8")
    labels = [
        value.decode() if isinstance(value, bytes) else value for value in found.as_numpy("label")
    ]
    assert labels == [TOPIC.classes[i] for i in expected.labels]
    assert found.as_numpy("probs") == pytest.approx(expected.scores, abs=1e-5)
    assert found.as_numpy("score") == pytest.approx(expected.scores.max(axis=1), abs=1e-5)
    assert found.get_response()["id"] == "r8"
    assert found.get_response()["model_name"] == "fused"


def test_triton_client_gets_one_output_of_one_of_two_tasks(triton):
    import tritonclient.http as http

    wanted = [http.InferRequestedOutput("names_label")]
    found = triton.infer("both", [texts_input(http, ["oil oil price"])], outputs=wanted)
    assert set(json.loads(found.as_numpy("names_label")[0])) <= {"oil", "rates"}
    assert found.as_numpy("topic_label") is None


def test_triton_client_is_refused_in_its_own_exception(triton):
    import tritonclient.http as http

    given = [texts_input(http, TEXTS)]
    unknown = [http.InferRequestedOutput("colour")]
    with pytest.raises(http.InferenceServerException, match="'colour'; it has label, score, probs"):
        triton.infer("fused", given, outputs=unknown)
    classified = [http.InferRequestedOutput("label", class_count=2)]
    with pytest.raises(http.InferenceServerException, match="classification is not offered"):
        triton.infer("fused", given, outputs=classified)
    with pytest.raises(http.InferenceServerException, match="no model 'nobody'") as refused:
        triton.infer("nobody", given)
    assert refused.value.status() == "404"
    with pytest.raises(http.InferenceServerException, match="compressed bodies") as refused:
        triton.infer("fused", given, request_compression_algorithm="gzip")
    assert refused.value.status() == "415"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shape": [5]}, "inputs.0.shape: [5] does not hold the 2 texts that were sent"),
        ({"datatype": "FP32"}, "inputs.0.datatype: input should be 'BYTES'"),
        ({"name": "INPUT0"}, "inputs.0.name: input should be 'text'"),
        ({"data": ["a", 3]}, "element 1 of the input is no text"),
        ({"data": [], "shape": [0]}, "inputs.0: there is no text in it"),
        ({"data": None}, "inputs.0.data: field required"),
        ({"data": None, "parameters": {"binary_data_size": 9}}, "0 bytes follow the JSON"),
    ],
)
def test_infer_says_what_is_wrong(everything, change, sentence):
    given = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a", "b"], **change}
    found = ask(f"{everything.url}/v2/models/fused/infer", {"inputs": [given]})
    assert found.status_code == 422
    assert sentence in found.json()["error"]


@pytest.mark.parametrize(
    ("raw", "length", "sentence"),
    [
        (b"\x09\x00\x00\x00ab", None, "element 0 of the binary input ends beyond its end"),
        (b"\x01\x00\x00\x00a\x00", None, "element 1 of the binary input ends beyond its end"),
        (b"\x01\x00\x00\x00\xff", None, "element 0 of the input is not UTF-8"),
        (b"", "9" * 9, "is 999999999, but the body has"),
        (b"", "-1", "must be a number of bytes"),
        (b"", "٣", "must be a number of bytes"),
    ],
)
def test_infer_says_what_is_wrong_with_a_binary_input(everything, raw, length, sentence):
    given = {"name": "text", "shape": [1], "datatype": "BYTES"}
    head = json.dumps(
        {"inputs": [{**given, "parameters": {"binary_data_size": len(raw)}}]}
    ).encode()
    found = requests.post(
        f"{everything.url}/v2/models/fused/infer",
        data=head + raw,
        headers={"Inference-Header-Content-Length": (length or str(len(head))).encode()},
        timeout=30,
    )
    assert found.status_code == 422
    assert sentence in found.json()["error"]


def test_a_folder_has_no_versions(everything):
    assert (
        requests.get(f"{everything.url}/v2/models/fused/versions/1", timeout=9).status_code == 404
    )


def test_nested_data_and_a_column_are_read(everything):
    body = {
        "inputs": [{"name": "text", "shape": [2, 1], "datatype": "BYTES", "data": [["a"], ["b"]]}]
    }
    found = ask(f"{everything.url}/v2/models/lexical/infer", body).json()
    assert [output["name"] for output in found["outputs"]] == ["label", "score", "probs"]
    assert found["outputs"][2]["shape"] == [2, 3]
    assert len(found["outputs"][2]["data"]) == 6


def test_raw_texts_come_back():
    from serve.http.tensors import Tensor

    texts = ["", "a", "grün 🌾", "b" * 300]
    assert texts_of_raw(Tensor(name="label", values=texts).raw()) == texts
