"""Small real classifiers for the tests of serving, and an HTTP server for them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llmembed.contract import Examples, Task

TOPICS = {"oil": "oil supply price", "grain": "grain exports", "banks": "banks rates cut"}
TOPIC = Task(name="topic", classes=tuple(TOPICS))
NAMES = Task(name="names", classes=("oil", "rates"), kind="multi")


def news(count: int, seed: int = 0) -> Examples:
    """Distinct texts of words of their topic, which they may name."""
    rng = np.random.default_rng(seed)
    topics = np.arange(count) % len(TOPICS)
    words = [words.split() for words in TOPICS.values()]
    texts = [
        " ".join(rng.choice(words[topic], size=3 + i % 5)) + f" s{seed}n{i}"
        for i, topic in enumerate(topics)
    ]
    names = np.array([[name in text.split() for name in NAMES.classes] for text in texts])
    return Examples(texts=texts, labels={"topic": topics.astype(np.int64), "names": names})


def fit_small(spec: Any, folder: Path) -> dict[str, Path]:
    """Name -> the folder of a saved classifier: ``fused`` over the tiny BERT, ``lexical``, and
    ``both``, fused, of two tasks."""
    from llmembed.backbones import View
    from llmembed.cluster import LocalRuntime
    from llmembed.contract import Silent
    from llmembed.heads import HeadConfig
    from llmembed.methods.frozen.fused import Fused
    from llmembed.methods.frozen.lexical import Lexical

    fused = Fused(
        views={"L": View(backbone=spec, reads=spec.reads)},
        head=HeadConfig(widths=(16,), epochs=8, precision="fp32"),
    )
    lexical = Lexical(inverse_penalties=(10.0,))
    wanted = {
        "fused": (fused, [TOPIC]),
        "lexical": (lexical, [TOPIC]),
        "both": (fused, [TOPIC, NAMES]),
    }
    folders = {}
    with LocalRuntime(folder / "files") as runtime:
        for name, (method, tasks) in wanted.items():
            classifier = method.fit(tasks, news(90), news(30, seed=1), runtime, Silent())
            folders[name] = folder / name
            classifier.save(folders[name])
    return folders


class Served:
    """A ``Server`` behind a real uvicorn on loopback, in a thread of its own."""

    def __init__(self, settings: Mapping[str, Any], *, root_path: str = "") -> None:
        from serve.model.server import Server
        from serve.settings import load_settings

        self.server = Server(load_settings(settings))
        self._root_path = root_path
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.loop: asyncio.AbstractEventLoop | None = None
        self._up, self._error = threading.Event(), None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._up.wait()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(20)
        self.socket.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
        finally:
            self._up.set()

    async def _serve(self) -> None:
        import uvicorn

        from serve.http.web import build

        self.loop = asyncio.get_running_loop()
        await self.server.start()
        config = uvicorn.Config(
            build(self.server),
            log_level="warning",
            access_log=False,
            lifespan="off",
            root_path=self._root_path,
        )
        self._uvicorn = uvicorn.Server(config)
        self._up.set()  # the socket listens already
        await self._uvicorn.serve(sockets=[self.socket])
        await self.server.stop()


def fit_encoder(model: Path, folder: Path) -> Path:
    """A classifier of method ``encoder``: the tiny BERT fine-tuned, which reads 64 tokens."""
    from llmembed.cluster import LocalRuntime
    from llmembed.contract import Silent
    from llmembed.finetuning import FinetuneConfig
    from llmembed.methods.finetuned.encoder import Encoder

    training = FinetuneConfig(learning_rate=3e-3, epochs=4, batch=16, precision="fp32")
    method = Encoder(model=str(model), training=training)
    with LocalRuntime(folder / "files") as runtime:
        classifier = method.fit([TOPIC], news(90), news(30, seed=1), runtime, Silent())
        classifier.save(folder / "encoder")
    return folder / "encoder"
