"""MLflow's scoring interface, read as MLflow itself reads it."""

from __future__ import annotations

import pytest
import requests
from http_asking import TEXTS, ask
from small_models import TOPIC


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
