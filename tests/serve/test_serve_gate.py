"""What every request passes: key, sizes, times, errors."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
import time

import pytest
import requests

from llmembed.errors import ConfigError

SECRET = "word-of-the-day-4711"
KEY = "s3cret-key"


def ask(url, body=None, **options):
    return requests.post(url, json=body or {"inputs": "oil price"}, timeout=30, **options)


@pytest.fixture(scope="module")
def keyed(http_server):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_SERVE_KEY", KEY)
        # Read at the start, not at the first request.
        return http_server(
            "lexical", api_key_env="TEST_SERVE_KEY", cors_origins=["https://page.example"]
        )


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


# The key


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer {KEY}x", b"Bearer \xe9"],
)
def test_without_the_key_nothing_is_answered(keyed, header):
    headers = {} if header is None else {"authorization": header}
    for path in ("/predict", "/v1/embeddings", "/invocations"):
        found = ask(keyed.url + path, headers=headers)
        assert found.status_code == 401
        said = "send the key as Authorization: Bearer KEY"
        if path.startswith("/v1/"):
            said = {"message": said, "type": "unauthorized"}
        assert found.json() == {"error": said, "error_type": "unauthorized"}
        assert found.headers["www-authenticate"] == "Bearer"
    for path in ("/metrics", "/info", "/v1/models", "/nothing"):
        assert requests.get(keyed.url + path, headers=headers, timeout=9).status_code == 401


def test_with_the_key_it_answers(keyed):
    for header in (f"Bearer {KEY}", f"bearer {KEY}", f"Bearer  {KEY} "):
        assert ask(f"{keyed.url}/predict", headers={"authorization": header}).status_code == 200


def test_health_is_told_without_the_key(keyed):
    for path in ("/health", "/ping", "/v2/health/live", "/v2/health/ready"):
        assert requests.get(keyed.url + path, timeout=9).status_code == 200


def test_below_a_prefix_the_same_paths_are_open(keyed, served_models, monkeypatch):
    from small_models import Served

    monkeypatch.setenv("TEST_SERVE_KEY", KEY)
    settings = {"models": [str(served_models["lexical"])], "api_key_env": "TEST_SERVE_KEY"}
    served = Served(settings, root_path="/news")
    try:
        for path in ("/health", "/ping", "/v2/health/live", "/", "/docs", "/page/style.css"):
            url = f"{served.url}{path}"  # uvicorn puts the prefix before it
            assert requests.get(url, timeout=9).status_code == 200, path
        for path in ("/info", "/news/health", "/newsroom"):
            assert requests.get(served.url + path, timeout=9).status_code == 401, path
        body = {"model": "gone", "input": "a"}
        found = ask(f"{served.url}/v1/embeddings", body, headers={"authorization": f"Bearer {KEY}"})
        assert "message" in found.json()["error"]
    finally:
        served.stop()


def test_keys_are_compared_in_constant_time(keyed, monkeypatch):
    import hashlib
    import hmac

    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    ask(f"{keyed.url}/predict", headers={"authorization": "Bearer wrong"})
    digests = [hashlib.sha256(key).digest() for key in (b"wrong", KEY.encode())]
    assert compared == [tuple(digests)]


def test_a_key_that_is_set_but_empty_or_named_and_missing_is_a_mistake(monkeypatch):
    from serve.settings import key_digest, load_settings

    given = {"models": ["m"], "api_key_env": "TEST_SERVE_KEY"}
    monkeypatch.setenv("TEST_SERVE_KEY", " ")
    with pytest.raises(ConfigError, match="TEST_SERVE_KEY is set but empty"):
        key_digest(load_settings(given))
    monkeypatch.delenv("TEST_SERVE_KEY")
    with pytest.raises(ConfigError, match="TEST_SERVE_KEY is not set"):
        key_digest(load_settings(given))
    monkeypatch.delenv("LLMEMBED_API_KEY", raising=False)
    assert key_digest(load_settings({"models": ["m"]})) is None


# Other origins


def test_other_origins_are_not_let_in_by_default(everything):
    found = ask(f"{everything.url}/predict", headers={"origin": "https://page.example"})
    assert found.status_code == 200
    assert not [name for name in found.headers if name.lower().startswith("access-control")]
    asked = requests.options(
        f"{everything.url}/predict",
        headers={"origin": "https://page.example", "access-control-request-method": "POST"},
        timeout=9,
    )
    assert asked.status_code == 405


def test_an_origin_of_the_settings_is_let_in_without_the_key_before_it_asks(keyed):
    origin = {"origin": "https://page.example"}
    first = {**origin, "access-control-request-method": "POST"}
    asked = requests.options(f"{keyed.url}/predict", headers=first, timeout=9)
    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == "https://page.example"
    found = ask(f"{keyed.url}/predict", headers=origin)
    assert (found.status_code, "access-control-allow-origin" in found.headers) == (401, True)
    other = {**first, "origin": "https://elsewhere.example"}
    asked = requests.options(f"{keyed.url}/predict", headers=other, timeout=9)
    assert "access-control-allow-origin" not in asked.headers


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


MANY = 2_000_000


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
    sent = body % ",".join([element] * ((MANY - 100) // (len(element) + 1)))
    began = time.process_time()  # of the server, which is a thread here
    found = requests.post(
        everything.url + path, sent, headers={"content-type": "application/json"}, timeout=60
    )
    seconds = time.process_time() - began
    assert found.status_code in (413, 422)
    assert len(found.content) < 1000
    assert seconds < 4  # about one, most of it for JSON; it was half a minute


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


# Failures


def test_a_failure_of_ours_shows_neither_trace_nor_text(http_server, caplog, monkeypatch):
    served = http_server("lexical")
    seat = next(iter(served.server.shelf.seats.values()))

    def broken(texts, runtime=None):
        raise RuntimeError(f"can't read {texts}")

    monkeypatch.setattr(type(seat.classifier), "predict", lambda self, texts: broken(texts))
    with caplog.at_level(logging.DEBUG):
        found = ask(f"{served.url}/predict", {"inputs": SECRET}, headers={"x-request-id": "req-1"})
    assert found.status_code == 500
    assert found.json() == {
        "error": "something failed here; the log names it by request req-1",
        "error_type": "internal",
    }
    assert "request req-1: RuntimeError" in caplog.text
    assert "in broken" in caplog.text
    assert SECRET not in caplog.text


def test_texts_are_in_no_log_and_no_metric(everything, caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        ask(f"{everything.url}/predict", {"inputs": SECRET})
        ask(f"{everything.url}/predict", {"inputs": [SECRET, 3]})
        ask(f"{everything.url}/predict", {"inputs": SECRET * 99})
        ask(f"{everything.url}/invocations", {"instances": [{"no": SECRET, "text": 3}]})
        found = ask(f"{everything.url}/predict", {"inputs": {"a": SECRET}})
    assert SECRET not in found.text
    assert SECRET not in caplog.text
    assert SECRET not in "".join(capfd.readouterr())
    assert SECRET not in requests.get(f"{everything.url}/metrics", timeout=9).text


# Figures


def test_a_request_keeps_its_id(everything):
    for path in ("/predict", "/nothing"):
        found = ask(everything.url + path, headers={"x-request-id": "my.id-7"})
        assert found.headers["x-request-id"] == "my.id-7"
    made = {ask(f"{everything.url}/predict").headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    for odd in ("a b", "é".encode(), "x" * 129, "<script>"):
        found = ask(f"{everything.url}/predict", headers={"x-request-id": odd})
        assert found.headers["x-request-id"] not in (odd, str(odd))


def test_requests_are_counted_by_route_and_status(http_server):
    served = http_server("lexical", fresh=True)
    ask(f"{served.url}/predict")
    ask(f"{served.url}/predict", {"inputs": 3})
    ask(f"{served.url}/nobody/serves/this")
    requests.get(f"{served.url}/v2/models/lexical", timeout=9)
    found = requests.get(f"{served.url}/metrics", timeout=9).text
    for line in (
        'llmembed_requests_total{path="/predict",replica="0",status="200"} 1.0',
        'llmembed_requests_total{path="/predict",replica="0",status="422"} 1.0',
        'llmembed_requests_total{path="other",replica="0",status="404"} 1.0',
        'llmembed_requests_total{path="/v2/models/{name}",replica="0",status="200"} 1.0',
    ):
        assert line in found, found


def test_not_ready_is_said_so(http_server):
    served = http_server("lexical", fresh=True)
    served.server._started = False
    for path in ("/health", "/ping", "/v2/health/ready"):
        found = requests.get(served.url + path, timeout=9)
        assert (found.status_code, found.json()["error_type"]) == (503, "unhealthy")
    assert requests.get(f"{served.url}/v2/health/live", timeout=9).status_code == 200


def test_a_client_that_goes_away_harms_nobody(everything):
    with socket.create_connection(("127.0.0.1", everything.port), timeout=9) as leaving:
        leaving.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
    assert ask(f"{everything.url}/predict").status_code == 200
    seats = everything.server.shelf.seats.values()
    time.sleep(0.1)
    assert not any(seat.in_flight for seat in seats)
