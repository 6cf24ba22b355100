"""Who is let in: the key, and pages of other origins."""

from __future__ import annotations

import pytest
import requests
from http_asking import ask

from llmembed.errors import ConfigError

KEY = "s3cret-key"


@pytest.fixture(scope="module")
def keyed(http_server):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_SERVE_KEY", KEY)
        # Read at the start, not at the first request.
        return http_server(
            "lexical", api_key_env="TEST_SERVE_KEY", cors_origins=["https://page.example"]
        )


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
