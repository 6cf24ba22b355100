"""What served models may do: what the settings allow, whatever their files or a request say."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_program import TASK, fitted, registered
from small_models import Served
from small_server import post

from llmembed.cluster import LocalRuntime
from llmembed.contract import Examples, Silent
from llmembed.errors import ConfigError, ModelError
from llmembed.generation.building import build_generator
from llmembed.methods.frozen.lexical import Lexical
from llmembed.methods.prompted.prompt import Prompting
from llmembed.tracking import Tracking, download
from serve.errors import UnknownModelError
from serve.model.server import Server
from serve.placement import looked_up
from serve.settings import load_settings

sys.path.append(str(Path(__file__).parent.parent / "generation"))
from openai_server import OpenAIServer


@pytest.fixture
def endpoint():
    with OpenAIServer(lambda messages: TASK.classes[0]) as endpoint:
        yield endpoint


@pytest.fixture
def files(tmp_path: Path, empty_database: Path) -> Path:
    (tmp_path / "files").mkdir()
    shutil.copy(empty_database, tmp_path / "files" / "mlflow.db")
    return tmp_path / "files"


def asking(endpoint: OpenAIServer, files: Path) -> Any:
    """A fitted prompt classifier that asks ``endpoint`` without a key."""
    told = {"kind": "endpoint", "model": "m", "base_url": endpoint.url, "api_key_env": None}
    method = Prompting(generator=build_generator(told), style="zero_shot", max_answer_tokens=8)
    none = Examples(texts=[], labels={TASK.name: np.zeros(0, dtype=np.int64)})
    return method.fit([TASK], none, none, LocalRuntime(files), Silent())


def test_an_endpoint_is_asked_only_as_the_settings_say(endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-of-mine")
    monkeypatch.setenv("GATE_API_KEY", "the-key")
    folder = tmp_path / "prompt"
    asking(endpoint, tmp_path / "files").save(folder)
    manifest = json.loads((folder / "classifier.json").read_text())
    manifest["settings"]["generator"]["api_key_env"] = "AWS_SECRET_ACCESS_KEY"
    (folder / "classifier.json").write_text(json.dumps(manifest))
    given = {"models": [str(folder)], "api_key_env": None, "files": str(tmp_path / "files")}
    word = rf"allow\.endpoints={endpoint.url}=VARIABLE$"
    with pytest.raises(ModelError, match=word):
        Served(given)
    with pytest.raises(ModelError, match=word):  # before any replica is started
        looked_up(load_settings(given))
    served = Served({**given, "allow.endpoints": f"{endpoint.url}=GATE_API_KEY"})
    try:
        status, answer = post(f"{served.url}/predict", {"inputs": "any"})
    finally:
        served.stop()
    assert status == 200 and answer[0]["label"] == TASK.classes[0]
    assert {call.authorization for call in endpoint.calls} == {"Bearer the-key"}


def test_a_version_that_a_request_names_gets_no_more(endpoint, files, tmp_path):
    registered(fitted(Lexical(), files), "news", files, score=0.9, at=tmp_path / "one")
    registered(asking(endpoint, files), "news", files, score=0.1, at=tmp_path / "two")

    async def main(**allow: Any) -> None:
        server = Server(load_settings({"models": ["news"], "files": str(files), **allow}))
        await server.start()
        try:
            await server.predict(["any"], model="news/2", truncate=True)
        finally:
            await server.stop()

    with pytest.raises(UnknownModelError, match="there is no 'news/2'"):
        asyncio.run(main())
    assert endpoint.calls == []
    asyncio.run(main(**{"allow.endpoints": [endpoint.url]}))
    assert len(endpoint.calls) == 1


def test_a_version_lies_where_the_registry_is_or_is_not_fetched(files, tmp_path):
    with OpenAIServer() as elsewhere:
        tracking = Tracking(files=files)
        tracking.client.create_registered_model("news")
        for place in (elsewhere.url, elsewhere.url.replace("http", "mlflow-artifacts", 1)):
            made = tracking.client.create_model_version("news", source=place)
            with pytest.raises(ModelError, match="on a host other than the registry's"):
                download(tracking, f"models:/news/{made.version}", tmp_path / "to")


def test_mistakes_in_what_is_allowed_are_one_sentence():
    with pytest.raises(ConfigError, match="in clear to http"):
        load_settings({"models": ["m"], "allow": {"endpoints": ["http://gate.example/v1=A_KEY"]}})
    with pytest.raises(ConfigError) as refused:
        load_settings({"models": ["m"], "allow.endpoints": "http://me:hidden@gate.example/v1"})
    assert "hidden" not in str(refused.value)
    with pytest.raises(ConfigError, match="did you mean 'endpoints'"):
        load_settings({"models": ["m"], "allow.endpoint": "http://gate.example/v1"})
