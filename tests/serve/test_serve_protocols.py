"""Each interface, asked by the clients that people use."""

from __future__ import annotations

import base64
import json
import subprocess

import numpy as np
import pytest
import requests
from small_models import TOPIC, news

from serve.tensors import texts_of_raw

TEXTS = list(news(6, seed=5).texts)


def ask(url, json=None, **options):
    return requests.post(url, json=json, timeout=30, **options)


@pytest.fixture(scope="module")
def expected(served_models):
    from llmembed.methods import load

    return load(served_models["fused"]).predict(TEXTS)["topic"]


@pytest.fixture(scope="module")
def openai_client(everything):
    openai = pytest.importorskip("openai", reason="the client openai is not installed")
    with openai.OpenAI(base_url=f"{everything.url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def triton(everything):
    http = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    with http.InferenceServerClient(f"127.0.0.1:{everything.port}") as client:
        yield client


def texts_input(http, texts, **options):
    given = http.InferInput("text", [len(texts)], "BYTES")
    given.set_data_from_numpy(np.array([t.encode() for t in texts], dtype=object), **options)
    return given


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


# OpenAI


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


# Open Inference Protocol


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


# MLflow


@pytest.mark.parametrize(
    "body",
    [
        {
            "dataframe_split": {
                "columns": ["id", "text"],
                "data": [[i, t] for i, t in enumerate(TEXTS)],
            }
        },
        {"dataframe_split": {"index": [0], "columns": ["words"], "data": [[t] for t in TEXTS]}},
        {"dataframe_records": [{"text": text, "id": 1} for text in TEXTS]},
        {"inputs": TEXTS},
        {"inputs": {"text": TEXTS}},
        {"inputs": [[text] for text in TEXTS]},
        {"instances": TEXTS},
        {"instances": [{"text": text} for text in TEXTS]},
    ],
)
def test_invocations_give_what_mlflow_gives(everything, served_models, body):
    pyfunc = pytest.importorskip("llmembed.tracking.pyfunc")
    from llmembed.methods import load

    classifier = load(served_models["both"])
    wanted = pyfunc.answer(classifier, TEXTS, {"return_scores": True}).to_dict("records")
    body = {**body, "params": {"return_scores": True, "temperature": 1}}
    given = ask(f"{everything.url}/invocations?model=both", body)
    assert given.status_code == 200, given.text
    found = given.json()["predictions"]
    assert [list(row) for row in found] == [list(row) for row in wanted]
    for row, other in zip(found, wanted, strict=True):
        assert row["topic"] == other["topic"]
        assert row["names"] == other["names"]
        assert row["topic_score"] == pytest.approx(other["topic_score"], abs=1e-5)
        assert row["topic_scores"] == pytest.approx(other["topic_scores"], abs=1e-5)


def test_mlflow_itself_reads_the_same_bodies(tmp_path):
    """The texts we read are those that MLflow's own scoring server would read."""
    server = pytest.importorskip("mlflow.pyfunc.scoring_server")
    from serve.routes.mlflow import Invocation, texts_of, texts_of_csv

    bodies = [
        {"dataframe_split": {"columns": ["id", "text"], "data": [[1, "a"], [2, "b"]]}},
        {"dataframe_records": [{"id": 1, "text": "a"}, {"text": "b"}]},
        {"instances": [{"text": "a"}, {"text": "b"}]},
        {"inputs": {"text": ["a", "b"]}},
    ]
    for body in bodies:
        theirs = server.infer_and_parse_data(dict(body))
        theirs = theirs["text"]
        assert texts_of(Invocation.model_validate(body)) == list(theirs) == ["a", "b"]
    import io

    file = 'id,text\n1,"a, ""b"""\n\n2,"c\nd"\n'
    theirs = list(server.parse_csv_input(io.StringIO(file))["text"])
    assert texts_of_csv(file.encode()) == theirs == ['a, "b"', "c\nd"]


def test_invocations_read_csv(everything, expected):
    lines = ["text", *TEXTS]
    given = requests.post(
        f"{everything.url}/invocations",
        data="\n".join(lines).encode(),
        headers={"content-type": "text/csv; charset=UTF-8"},
        timeout=30,
    )
    labels = [row["topic"] for row in given.json()["predictions"]]
    assert labels == [TOPIC.classes[i] for i in expected.labels]


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ({}, 422, "give exactly one of dataframe_split, dataframe_records, inputs, instances"),
        ({"inputs": ["a"], "instances": ["a"]}, 422, "not inputs and instances"),
        ({"inputs": []}, 422, "there is no text in the request"),
        ({"inputs": ["a", 3, None]}, 422, "row 1 holds no text (2 such rows)"),
        ({"inputs": {"text": 3}}, 422, "the column holds no list of texts"),
        ({"dataframe_records": [{"a": "x", "b": "y"}]}, 422, "the table has no column 'text'"),
        ({"dataframe_records": [{"text": "x"}, {"a": "y"}]}, 422, "row 1 holds no text"),
        ({"instances": [{"text": "x"}, "y"]}, 422, "some rows are objects and some are not"),
        ({"dataframe_split": {"columns": ["text"], "data": [["a"], []]}}, 422, "row 1 has 0 cells"),
    ],
)
def test_invocations_say_what_is_wrong(everything, body, status, sentence):
    found = ask(f"{everything.url}/invocations", body)
    assert found.status_code == status
    assert sentence in found.json()["error"]


@pytest.mark.parametrize(
    ("kind", "body", "status", "sentence"),
    [
        ("text/plain", b"text\na", 415, "application/json or text/csv"),
        ("text/csv; charset=latin-1", b"text\na", 415, "only UTF-8"),
        ("text/csv", b"", 422, "no header line"),
        ("text/csv", b"text\n\xff", 422, "not UTF-8"),
        ("text/csv", b'text\n"open', 422, "can't be read"),
        ("text/csv", b"text\na,b", 422, "row 0 has 2 cells, not 1"),
    ],
)
def test_invocations_say_what_is_wrong_with_a_csv(everything, kind, body, status, sentence):
    found = requests.post(
        f"{everything.url}/invocations", data=body, headers={"content-type": kind}, timeout=30
    )
    assert (found.status_code, sentence in found.json()["error"]) == (status, True), found.text


def test_a_long_cell_is_a_text_like_any(everything):
    found = requests.post(
        f"{everything.url}/invocations",
        data=b"text\n" + b"oil " * 40_000,
        headers={"content-type": "text/csv"},
        timeout=30,
    )
    assert "can't be read" not in found.text
    assert found.status_code == 200 or "tokens" in found.json()["error"]


def test_ping_and_version(everything):
    import importlib.metadata

    assert requests.get(f"{everything.url}/ping", timeout=9).status_code == 200
    found = requests.get(f"{everything.url}/version", timeout=9).text
    assert found == importlib.metadata.version("mlflow")


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


# Fine-tuned encoders


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


def test_raw_texts_come_back():
    from serve.tensors import Tensor

    texts = ["", "a", "grün 🌾", "b" * 300]
    assert texts_of_raw(Tensor(name="label", values=texts).raw()) == texts
