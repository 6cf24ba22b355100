"""How much is let in: sizes, times, crowds."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time

import pytest
import requests
from http_asking import ask


@pytest.fixture(scope="module")
def narrow(http_server):
    """Every limit within reach of a test."""
    return http_server(
        "fused",
        "lexical",
        limits__request_bytes=4096,
        limits__texts=4,
        limits__tokens_per_text=60,
    )


@pytest.fixture(scope="module")
def hasty(http_server):
    return http_server("fused", limits__seconds=2.0)


# Sizes


def test_a_body_above_the_limit_is_refused_by_its_header(narrow):
    connection = http.client.HTTPConnection("127.0.0.1", narrow.port, timeout=9)
    connection.putrequest("POST", "/predict")
    connection.putheader("content-length", str(10**12))
    connection.endheaders()  # and not a byte of it
    found = connection.getresponse()
    assert found.status == 413
    assert json.loads(found.read()) == {
        "error": "the request's body is larger than 4,096 bytes",
        "error_type": "too_large",
    }
    connection.close()


def test_a_body_above_the_limit_is_refused_while_it_streams(narrow):
    found = requests.post(
        f"{narrow.url}/predict",
        data=iter([b'{"inputs": "', b"a" * 5000, b'"}']),
        headers={"content-type": "application/json"},
        timeout=9,
    )
    assert (found.status_code, found.json()["error_type"]) == (413, "too_large")


def test_a_slow_body_is_given_up(hasty):
    with socket.create_connection(("127.0.0.1", hasty.port), timeout=9) as slow:
        slow.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        began = time.perf_counter()
        found = b""
        while b"}" not in found:
            found += slow.recv(4096) or b"}"
    assert found.startswith(b"HTTP/1.1 504")
    assert b"the body did not come within 2 s" in found
    assert 1.9 < time.perf_counter() - began < 8


def test_more_texts_than_the_limit_are_refused(narrow):
    bodies = {
        "/predict": {"inputs": ["a"] * 5},
        "/embed": {"inputs": ["a"] * 5},
        "/v1/embeddings": {"input": ["a"] * 5},
        "/classify": {"input": ["a"] * 5},
        "/invocations": {"inputs": ["a"] * 5},
        "/v2/models/fused/infer": {
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [5], "data": ["a"] * 5}]
        },
    }
    for path, body in bodies.items():
        found = ask(narrow.url + path, body)
        assert found.status_code == 413, path
        said = found.json()["error"]
        said = said["message"] if path.startswith("/v1/") else said
        assert said == "5 texts in one request; the limit is 4"


def test_a_long_text_is_cut_only_if_asked(narrow):
    text = "oil " * 40
    found = ask(f"{narrow.url}/predict", {"inputs": ["oil", text]})
    assert (found.status_code, found.json()["error_type"]) == (422, "tokenizer")
    assert "text 1 has 42 tokens, of which" in found.json()["error"]
    assert "truncate: true" in found.json()["error"]
    cut = ask(f"{narrow.url}/predict", {"inputs": ["oil", text], "truncate": True})
    assert cut.status_code == 200
    assert cut.headers["x-compute-tokens"] == "45"
    # Beyond the limit of a text it is refused all the same.
    found = ask(f"{narrow.url}/predict", {"inputs": "oil " * 70, "truncate": True})
    assert found.json()["error"] == "text 0 has 72 tokens; the limit is 60"


def test_what_is_wrong_is_said_in_one_sentence(everything):
    for body, sentence in (
        ({"inputs": 3}, "inputs: input should be a valid string"),
        ({"inputs": ["a", 3]}, "inputs.1: input should be a valid string"),
        ({"inputs": []}, "inputs: list should have at least 1 item after validation, not 0"),
        ({"text": "a"}, "inputs: field required"),
        ({"inputs": "a", "raw_scores": "perhaps"}, "raw_scores: input should be a valid boolean"),
    ):
        found = ask(f"{everything.url}/predict", body)
        assert found.status_code == 422
        assert found.json()["error"].startswith(sentence)


BYTES = 500_000


@pytest.mark.parametrize("element", ["1", "[]", "{}", "null", '"a"', '["a",1]'])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", '{"inputs":[%s]}'),
        ("/predict", '{"inputs":"a","task":[%s]}'),
        ("/embed", '{"inputs":[%s]}'),
        ("/classify", '{"input":[%s]}'),
        ("/v1/embeddings", '{"input":[%s]}'),
        ("/feedback", '{"text":"a","label":[%s]}'),
        ("/invocations", '{"dataframe_records":[%s]}'),
        ("/invocations", '{"dataframe_split":{"columns":[%s],"data":[]}}'),
        ("/invocations", '{"dataframe_split":{"columns":["a"],"data":[%s]}}'),
        ("/invocations", '{"instances":[%s]}'),
        ("/v2/models/lexical/infer", '{"inputs":[%s]}'),
        (
            "/v2/models/lexical/infer",
            '{"inputs":[{"name":"text","datatype":"BYTES","shape":[%s],"data":["a"]}]}',
        ),
        (
            "/v2/models/lexical/infer",
            '{"inputs":[{"name":"text","datatype":"BYTES","shape":[1],"data":[%s]}]}',
        ),
    ],
)
def test_a_body_full_of_faults_is_refused_at_once(everything, path, body, element):
    sent = body % ",".join([element] * (BYTES // (len(element) + 1)))
    began = time.process_time()  # of the server, which is a thread here
    found = requests.post(
        everything.url + path, sent, headers={"content-type": "application/json"}, timeout=60
    )
    seconds = time.process_time() - began
    assert found.status_code in (413, 422)
    assert len(found.content) < 1000
    assert seconds < 3  # .25 to 1.6 with both cores busy, most of it for JSON; it was eight


# Crowds


def in_company(served, count, work):
    """Hold the models' threads, send ``count`` requests, let go; their answers."""
    gate = threading.Event()
    answers = []
    for seat in served.server.shelf.seats.values():
        for host in seat.hosts.values():
            host._batcher._thread.submit(gate.wait, 20)
    threads = [threading.Thread(target=lambda: answers.append(work())) for _ in range(count)]
    for thread in threads:
        thread.start()
    return gate, threads, answers


def test_a_full_queue_refuses(http_server):
    served = http_server("fused", limits__queued_tokens=64)
    gate, threads, answers = in_company(
        served, 12, lambda: ask(f"{served.url}/predict", {"inputs": ["oil price rates"] * 4})
    )
    deadline = time.monotonic() + 15
    while not any(answer.status_code == 429 for answer in answers):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    gate.set()
    for thread in threads:
        thread.join()
    codes = sorted(answer.status_code for answer in answers)
    assert set(codes) == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error_type"] == "overloaded"
    assert refused.headers["retry-after"] == "1"
    assert ask(f"{served.url}/predict").status_code == 200  # it recovers


def test_only_so_many_requests_are_in_a_replica(http_server):
    served = http_server("fused", ingress__max_ongoing_requests=2)
    gate, threads, answers = in_company(served, 6, lambda: ask(f"{served.url}/predict"))
    deadline = time.monotonic() + 15
    while len(answers) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for path in ("/health", "/ping", "/v2/health/ready"):
        assert requests.get(served.url + path, timeout=9).status_code == 200
    gate.set()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429, 429]
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"] == "2 requests are being answered here: come again"
    for _ in range(5):  # none is counted for good
        assert ask(f"{served.url}/predict").status_code == 200
        assert ask(f"{served.url}/predict", {"inputs": 3}).status_code == 422


def test_an_answer_that_takes_too_long_is_given_up(hasty):
    gate, threads, answers = in_company(hasty, 1, lambda: ask(f"{hasty.url}/predict"))
    threads[0].join(15)
    gate.set()
    assert answers[0].status_code == 504
    assert answers[0].json() == {"error": "no answer within 2 s", "error_type": "timeout"}
    assert ask(f"{hasty.url}/predict").status_code == 200
