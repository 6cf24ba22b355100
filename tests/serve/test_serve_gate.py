"""What every request passes: ids, figures, failures, logs."""

from __future__ import annotations

import logging
import socket
import time

import requests
from http_asking import ask

SECRET = "word-of-the-day-4711"


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
