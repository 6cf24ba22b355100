"""A real HTTP server of small classifiers that are fitted in a second, in a thread of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

SUBJECTS = {
    "grain": ["the wheat harvest", "corn exports", "the barley crop", "soybean farmers"],
    "ships": ["the tanker", "port workers", "the cargo vessel", "a container ship"],
    "money": ["the central bank", "interest rates", "currency dealers", "bond yields"],
}
VERBS = {"good": ["gained", "improved a lot", "did well"], "bad": ["fell", "suffered", "lost"]}


def save_newsroom(folder: Path, *, moods: bool = False, multi: bool = False) -> Path:
    """A ``lexical`` classifier of the topic of short news, and with ``moods`` of a second task;
    ``multi``: the topic task takes several classes. A threshold of 0.6 belongs to the topic."""
    from llmembed.cluster import LocalRuntime
    from llmembed.contract import Examples, Silent, Task
    from llmembed.methods.frozen.lexical import Lexical

    topics, verbs = list(SUBJECTS), list(VERBS)
    tasks = [Task(name="topic", classes=tuple(topics), kind="multi" if multi else "single")]
    tasks += [Task(name="mood", classes=tuple(verbs))] if moods else []
    texts, topic, mood = [], [], []
    for number in range(120):
        t, m = number % 3, number // 12 % 2
        subject = SUBJECTS[topics[t]][number % 4]
        texts.append(f"{subject} {VERBS[verbs[m]][number // 3 % 3]} in week {number} of the year")
        topic.append(t)
        mood.append(m)
    labels: dict[str, Any] = {"topic": np.eye(3, dtype=bool)[topic] if multi else np.array(topic)}
    if moods:
        labels["mood"] = np.array(mood)
    rows = Examples(texts=texts, labels=labels)
    train, valid = rows.select(range(90)), rows.select(range(90, 120))
    with LocalRuntime(str(folder.parent / "files")) as runtime:
        Lexical(inverse_penalties=(10.0,)).fit(tasks, train, valid, runtime, Silent()).save(folder)
    if not multi:
        chosen = {"topic": {"unknown_below": 0.6, "wanted_precision": 0.99}}
        (folder / "thresholds.json").write_text(json.dumps(chosen))
    return folder


@contextmanager
def serving(models: list[Path], files: Path, **settings: Any) -> Iterator[str]:
    """The address of a server that answers with ``models``; it is gone afterwards."""
    import uvicorn

    from serve.http.web import build
    from serve.model.server import Server
    from serve.settings import load_settings

    server = Server(
        load_settings({"models": [str(m) for m in models], "files": str(files), **settings})
    )
    listening = socket.create_server(("127.0.0.1", 0))
    web = uvicorn.Server(uvicorn.Config(build(server), log_level="warning"))
    ready = threading.Event()
    failed: list[BaseException] = []

    async def main() -> None:
        try:
            await server.start()
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            ready.set()
        await web.serve(sockets=[listening])
        await server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert ready.wait(60)
        assert not failed, failed
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        web.should_exit = True
        thread.join(30)
        listening.close()


def post(address: str, body: Any, key: str | None = None) -> tuple[int, Any]:
    """Status and content of an answer, refused or not."""
    headers = {"content-type": "application/json"}
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    request = urllib.request.Request(address, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
