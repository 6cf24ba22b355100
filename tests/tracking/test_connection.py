from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmembed.contract import Classifier
from llmembed.errors import ConfigError
from llmembed.tracking import Tracking, download, masked, register, resolve_uri, ui_command
from llmembed.tracking.privacy import names_a_secret


def test_where_runs_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert resolve_uri(None, "files") == f"sqlite:///{tmp_path}/files/mlflow.db"
    assert resolve_uri("sqlite:///own.db", "files") == f"sqlite:///{tmp_path}/own.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    assert resolve_uri(None, "files") == "http://mlflow.example:5000"
    assert resolve_uri("postgresql+psycopg://db/x", "files") == "postgresql+psycopg://db/x"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(ConfigError, match="s3://bucket"):
        resolve_uri(None, "s3://bucket/files")
    with pytest.raises(ConfigError, match="sqlite:///FILE"):
        resolve_uri("mlruns", "files")


@pytest.mark.parametrize("scheme", ["http", "postgresql"])
def test_a_server_that_is_not_there_is_said_at_once(scheme: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(ConfigError, match="Nobody answers") as caught:
            _ = Tracking(f"{scheme}://me:hush@127.0.0.1:{port}/x").client
    assert time.monotonic() - began < 15
    assert "hush" not in str(caught.value)


def test_a_database_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("not a database, but long enough to look like none" * 99)
    with pytest.raises(ConfigError, match=r"MLflow can't use sqlite:///.*mlflow\.db"):
        _ = Tracking(f"sqlite:///{tmp_path}/mlflow.db").client


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:hush@db/x", "postgresql://***@db/x"),
        ("http://me:hu@sh@host:1/a?b=c", "http://***@host:1/a?b=c"),
        ("s3://b/x?X-Amz-Signature=hush&v=1", "s3://b/x?X-Amz-Signature=***&v=1"),
        ("https://h/?token=hush", "https://h/?token=***"),
        ("Authorization: Bearer hush.hush-123", "Authorization: Bearer ***"),
        ("hf_abcdefghijklmnopqrstuv", "***"),
        (
            "mail a@b.c, see https://h/a?max_length=256",
            "mail a@b.c, see https://h/a?max_length=256",
        ),
    ],
)
def test_masked(text: str, expected: str) -> None:
    assert masked(text) == expected


def test_names_of_secrets() -> None:
    secret = [
        "password",
        "hub.token",
        "api_key",
        "aws-secret",
        "db.passwd",
        "HF_TOKEN",
        "a.api.key",
    ]
    plain = ["max_tokens", "pad_token", "pooling.last_token", "tokens", "key", "joules_per_token"]
    assert [name for name in secret + plain if names_a_secret(name)] == secret


def test_no_secret_reaches_the_database(
    tracking: Tracking,
    files: Path,
    tiny: Callable[..., Classifier],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every value of every table, and every artifact, is searched."""
    monkeypatch.setenv("OPENAI_API_KEY", "hush-environment")
    address = "postgresql://me:hush@db/x"
    tiny("wheat").save(tmp_path / "saved")  # type: ignore[call-arg]
    with (
        pytest.raises(ValueError, match="hush"),
        tracking.run(f"fit {address}", tags={"tracking": address}, description=address) as run,
    ):
        run.params({"uri": address, "endpoint": {"api_key": "hush"}, "urls": [address]})
        run.params({"long": address * 400})
        run.dataset("r8", "d", 1, address)
        run.text(address, "a.txt")
        run.json({"address": address}, "a.json")
        register(
            run,
            tmp_path / "saved",
            name="r8",
            tasks=tiny("wheat").tasks,
            validation_score=1.0,
            metric="accuracy",
            digest="d",
            loader="llmembed.tiny_keyword:load",
        )
        raise ValueError(f"no answer from {address}")
    database = sqlite3.connect(files / "mlflow.db")
    tables = [
        name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")
    ]
    cells = [
        str(cell)
        for table in tables
        for row in database.execute(f'SELECT * FROM "{table}"')
        for cell in row
    ]
    database.close()
    assert any("postgresql://***@db/x" in cell for cell in cells), "masked values are there"
    assert [cell for cell in cells if "hush" in cell] == []
    written = [path for path in (files / "mlartifacts").rglob("*") if path.is_file()]
    assert len(written) > 5
    assert [path for path in written if b"hush" in path.read_bytes()] == []


def test_the_command_that_opens_the_page(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/a b/mlflow.db"
    words = shlex.split(ui_command(uri))
    assert words[words.index("--backend-store-uri") + 1] == uri
    assert "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false" in words
    assert words[-2:] == ["--workers", "1"]
    assert "hush" not in ui_command("postgresql://me:hush@db/x")
    assert ui_command("http://host:5000") == "open http://host:5000 in a browser"


@pytest.mark.slow
def test_the_command_starts_a_server_that_takes_runs_too(
    files: Path, tiny: Any, tmp_path: Path
) -> None:
    """The printed command, run as it is; then the same work through the server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = shlex.split(ui_command(f"sqlite:///{files}/mlflow.db"))
    place = command.index("ui") - 1
    command[place] = str(Path(sys.executable).parent / "mlflow")  # found whatever the PATH
    with subprocess.Popen(
        [*command, "--port", str(port)], cwd=tmp_path, start_new_session=True
    ) as server:
        try:
            tracking = _until_it_answers(f"http://127.0.0.1:{port}", files)
            tiny("wheat").save(tmp_path / "saved")
            with tracking.run("fit") as run:
                run.reporter().report({"loss": 0.5}, step=3)
                run.text("hello", "a.txt")
                register(
                    run,
                    tmp_path / "saved",
                    name="over-http",
                    tasks=tiny.tasks,
                    validation_score=0.5,
                    metric="accuracy",
                    digest="d",
                    loader="llmembed.tiny_keyword:load",
                )
            found = tracking.client.get_run(run.id)
            assert (found.info.status, found.data.metrics) == ("FINISHED", {"loss": 0.5})
            assert found.info.artifact_uri.startswith("mlflow-artifacts:")
            got = download(tracking, "models:/over-http@champion", tmp_path / "got")
            assert json.loads((got / "keyword.json").read_text())["word"] == "wheat"
        finally:
            os.killpg(server.pid, signal.SIGTERM)


def _until_it_answers(uri: str, files: Path) -> Tracking:
    deadline = time.monotonic() + 90
    while True:
        tracking = Tracking(uri, "served", files=files)
        try:
            _ = tracking.client
        except ConfigError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return tracking
