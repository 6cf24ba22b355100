"""Registers small classifiers, starts ``llmembed serve`` on them and asks it; used by tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llmembed.contract import Examples, Silent, Task

TOPICS = {"oil": "oil price rose supply", "grain": "grain exports fell", "banks": "banks cut rates"}
TASK = Task(name="topic", classes=tuple(TOPICS))


def examples(count: int, seed: int = 0) -> Examples:
    """Texts of words of their topic, topics by turns."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(TOPICS)
    words = [value.split() for value in TOPICS.values()]
    texts = [" ".join(rng.choice(words[y], size=4 + i % 9)) for i, y in enumerate(labels)]
    return Examples(texts=texts, labels={"topic": labels.astype(np.int64)})


def fitted(method: Any, files: Path) -> Any:
    from llmembed.cluster import LocalRuntime

    train, valid = examples(60), examples(30, seed=1)
    return method.fit([TASK], train, valid, LocalRuntime(files), Silent())


def registered(classifier: Any, name: str, files: Path, *, score: float, at: Path) -> Any:
    """``classifier`` as a new version of ``name``; the better score is champion."""
    from llmembed.tracking import Tracking, register

    classifier.save(at)
    with Tracking(experiment="serving", files=files).run(f"{name} {score}") as run:
        return register(
            run,
            at,
            name=name,
            tasks=classifier.tasks,
            validation_score=score,
            metric="accuracy",
            digest="d1",
            method=classifier.method,
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, body: Any = None, *, timeout: float = 30.0) -> tuple[int, Any, dict[str, str]]:
    """Status, JSON and headers; a refusal is an answer too."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            content, status, headers = answer.read(), answer.status, dict(answer.headers)
    except urllib.error.HTTPError as error:
        content, status, headers = error.read(), error.code, dict(error.headers)
    try:
        return status, json.loads(content), headers
    except ValueError:
        return status, content.decode(), headers


@dataclass
class Serving:
    """A running ``llmembed serve`` in a session of its own."""

    process: subprocess.Popen[str]
    url: str

    @classmethod
    def start(cls, files: Path, words: Sequence[str], **environment: str) -> Serving:
        port = free_port()
        command = [sys.executable, "-m", "llmembed", "serve", *words]
        command += ["--files", str(files), "--port", str(port)]
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            start_new_session=True,
            # A job in the background of a shell ignores Ctrl-C, and hands that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        serving = cls(process, f"http://127.0.0.1:{port}")
        end = time.monotonic() + 180
        while time.monotonic() < end:
            if process.poll() is not None:
                raise AssertionError(process.stdout.read() if process.stdout else "")
            try:
                if ask(f"{serving.url}/health", timeout=5)[0] == 200:
                    return serving
            except OSError:
                pass
            time.sleep(0.3)
        serving.kill()
        raise AssertionError("it did not come up")

    def replicas(self, deployment: str) -> list[int]:
        """Process ids of a deployment's replicas."""
        import psutil

        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            try:
                title = " ".join(child.cmdline())
            except psutil.Error:
                continue
            if title.startswith(f"ray::ServeReplica:llmembed:{deployment}"):
                found.append(child.pid)
        return found

    def stop(self) -> str:
        """Ctrl-C; returns what was printed."""
        self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=90)
        return output

    def kill(self) -> None:
        import psutil

        with contextlib.suppress(psutil.Error):  # HAProxy has a session of its own
            for child in psutil.Process(self.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    child.kill()
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


@dataclass
class Load:
    """Clients that ask without pause while something happens; ``with Load(...) as load``."""

    url: str
    body: Any
    clients: int = 4
    answers: list[Any] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                status, found, headers = ask(self.url, self.body)
            except OSError as error:
                self.refused.append(repr(error))
                continue
            if status == 200:
                self.answers.append((found, headers.get("x-model")))
            else:
                self.refused.append(f"{status} {found}")

    def wait_for(self, more: int, *, seconds: float = 60.0) -> None:
        """Until ``more`` further requests were answered."""
        wanted, end = len(self.answers) + more, time.monotonic() + seconds
        while len(self.answers) < wanted:
            assert time.monotonic() < end, f"too few answers; refused: {self.refused[-3:]}"
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
