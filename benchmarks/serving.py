"""A classifier online: ours against what a user would write, in one run, alternating.

    python benchmarks/serving.py --json benchmarks/results/serving.json

Same model (MiniLM, 256 tokens), same texts, same machine, clients of this process on it too:

    ours    `llmembed serve` of a probe (mean of the last depth, logistic regression)
    empty   an empty FastAPI application on the same Ray Serve
    plain   FastAPI with sentence_transformers.encode and a logistic regression, by uvicorn

Each number of clients asks one text a request, the next as soon as it is answered, for
``--seconds``; servers take turns, ``--repeats`` times, medians are reported.
``throughput_ratio_vs_plain`` and ``p99_ratio_vs_plain`` (ours / plain) are those at 32 clients,
``overhead_over_empty_app_ms`` is at one client: our p50 less the model's own time less the empty
application's p50. ``--infinity BIN`` adds the embedding server `infinity_emb` found in that folder
(embeddings alone, no classifier). Where sentence-transformers is not installed (``pip install
'llmembed[bench]'``), ``plain`` is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from running import Figures, installed, parse


def main() -> int:
    options = _options()
    if options.role:
        return {"ours": _serve_ours, "plain": _serve_plain}[options.role](
            options.folder, options.port
        )
    figures = Figures(options.json)
    figures.add(data=options.data, seconds=options.seconds, repeats=options.repeats)
    plain = installed("sentence_transformers", extra="bench", without="no plain service is asked")
    with tempfile.TemporaryDirectory() as folder:
        texts = _prepare(Path(folder), options, plain=plain)
        with _running(folder, options, plain=plain) as urls:
            asyncio.run(_measure(urls, texts, options, figures))
    figures.add(**_summary(figures["servers"]))
    figures.finish()
    print(json.dumps(figures, indent=1))
    return 0


def _options() -> argparse.Namespace:
    words = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    words.add_argument("--data", default="r8")
    words.add_argument("--model", default="minilm")
    words.add_argument("--train", type=int, default=1000, help="texts the heads are fitted on")
    words.add_argument("--texts", type=int, default=512)
    words.add_argument("--max-tokens", type=int, default=256)
    words.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 32, 64])
    words.add_argument("--seconds", type=float, default=5.0)
    words.add_argument("--repeats", type=int, default=3)
    words.add_argument("--infinity", metavar="BIN", help="folder that holds infinity_emb")
    words.add_argument("--role", help=argparse.SUPPRESS)
    words.add_argument("--folder", help=argparse.SUPPRESS)
    words.add_argument("--port", type=int, help=argparse.SUPPRESS)
    return parse(words, train=60, texts=16, max_tokens=64, clients=[1, 2], seconds=0.5, repeats=1)


def _prepare(folder: Path, options: argparse.Namespace, *, plain: bool) -> list[str]:
    """Fit both heads on the same texts; returns the texts that clients send."""
    from llmembed.backbones import View, parse_reads, resolve
    from llmembed.backbones.weights import local_folder
    from llmembed.cluster import LocalRuntime
    from llmembed.contract import Silent
    from llmembed.methods.frozen.probe import Probe
    from llmembed.texts import CorpusSource, load_corpus

    corpus = load_corpus(CorpusSource.benchmark(options.data), quarantine_folder=folder / "bad")
    train = corpus.train.select(range(min(options.train, len(corpus.train))))
    valid = corpus.valid.select(range(min(200, len(corpus.valid))))
    spec = resolve(options.model, reads="mean:1", max_tokens=options.max_tokens)
    probe = Probe(view=View(backbone=spec, reads=parse_reads("mean:1")))
    task = corpus.tasks[0]
    fitted = probe.fit([task], train, valid, LocalRuntime(folder / "files"), Silent())
    fitted.save(folder / "probe")
    told = {"classes": list(task.classes), "model": str(local_folder(spec.location))}
    (folder / "plain.json").write_text(json.dumps(told))
    if plain:
        _fit_plain(folder, told["model"], train.texts, train.labels[task.name])
    return list(corpus.test.texts[: options.texts])


def _fit_plain(folder: Path, model: str, texts: Sequence[str], labels: Any) -> None:
    import numpy as np
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression

    head = LogisticRegression(max_iter=500)
    head.fit(SentenceTransformer(model, device="cpu").encode(list(texts), batch_size=32), labels)
    np.savez(folder / "plain.npz", weights=head.coef_, bias=head.intercept_)


@contextlib.contextmanager
def _running(folder: str, options: argparse.Namespace, *, plain: bool) -> Iterator[dict[str, str]]:
    """The servers, each a process with its children, and where they answer."""
    at = {name: f"127.0.0.1:{port}" for name, port in _free_ports("ours", "plain", "infinity")}
    urls = {"ours": f"http://{at['ours']}/predict", "empty": f"http://{at['ours']}/empty/predict"}
    if plain:
        urls["plain"] = f"http://{at['plain']}/predict"
    commands = {
        role: [
            *(sys.executable, __file__, "--role", role),
            *("--folder", folder, "--port", at[role].partition(":")[2]),
        ]
        for role in urls
        if role != "empty"  # beside ours
    }
    if options.infinity:
        model = json.loads(Path(folder, "plain.json").read_text())["model"]
        commands["infinity"] = [
            *(f"{options.infinity}/infinity_emb", "v2", "--model-id", model),
            *("--port", at["infinity"].partition(":")[2], "--url-prefix", "/v1", "--device", "cpu"),
        ]
        urls["infinity"] = f"http://{at['infinity']}/v1/embeddings"
    processes = {
        name: subprocess.Popen(command, start_new_session=True, stdout=sys.stderr)
        for name, command in commands.items()
    }
    try:
        for url in urls.values():
            _wait(url, processes)
        yield urls
    finally:
        for process in processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in processes.values():
            process.wait(60)


def _free_ports(*names: str) -> list[tuple[str, int]]:
    """A port for each, all held until all are found."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        return [(name, s.getsockname()[1]) for name, s in zip(names, sockets, strict=True)]


def _wait(url: str, processes: dict[str, subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + 180
    data = json.dumps(_asked(url, "a text")).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    while time.monotonic() < end:
        assert all(process.poll() is None for process in processes.values()), "a server ended"
        with contextlib.suppress(OSError):
            urllib.request.urlopen(request, timeout=30).read()
            return
        time.sleep(0.5)
    raise SystemExit(f"{url} does not answer")


def _asked(url: str, text: str) -> dict[str, Any]:
    if url.endswith("/embeddings"):
        return {"input": text, "model": "default/not-specified"}
    return {"inputs": text, "truncate": True}


def _serve_ours(folder: str, port: int) -> int:
    from fastapi import FastAPI, Request
    from ray import serve

    from serve import load_settings
    from serve.starting import start

    class Empty:
        def __serve_build_asgi_app__(self) -> FastAPI:
            app = FastAPI()

            async def predict(request: Any) -> list[dict[str, Any]]:
                await request.json()
                return [{"label": "a", "score": 1.0}]

            # FastAPI can't look up the names of a function's own imports.
            predict.__annotations__["request"] = Request
            app.post("/predict", response_model=None)(predict)
            return app

    def ready(where: str) -> None:
        empty = serve.deployment(max_ongoing_requests=1024)(serve.ingress()(Empty))
        serve.run(empty.bind(), name="empty", route_prefix="/empty")

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = load_settings({"models": [f"{folder}/probe"], "files": f"{folder}/files"})
    start(settings, port=port, ready=ready)
    return 0


def _serve_plain(folder: str, port: int) -> int:
    """As it is usually written: one text a call, in FastAPI's pool of threads."""
    import numpy as np
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel
    from sentence_transformers import SentenceTransformer

    told = json.loads(Path(folder, "plain.json").read_text())
    head = np.load(Path(folder, "plain.npz"))
    model = SentenceTransformer(told["model"], device="cpu")

    class Asked(BaseModel):
        inputs: str
        truncate: bool = True

    app = FastAPI()

    def predict(asked: Asked) -> list[dict[str, Any]]:
        row = model.encode([asked.inputs], show_progress_bar=False)[0]
        logits = head["weights"] @ row + head["bias"]
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
        order = np.argsort(-scores)
        return [{"label": told["classes"][i], "score": float(scores[i])} for i in order]

    predict.__annotations__ = {"asked": Asked, "return": list[dict[str, Any]]}
    app.post("/predict")(predict)
    uvicorn.run(app, port=port, log_level="warning", access_log=False)
    return 0


async def _measure(
    urls: dict[str, str], texts: Sequence[str], options: argparse.Namespace, figures: Figures
) -> None:
    """Adds ``servers``: by server and number of clients."""
    found: dict[str, Any] = {name: {} for name in urls}
    for clients in options.clients:
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in urls}
        for _ in range(options.repeats):
            for name, url in urls.items():
                rounds[name].append(await _load(url, texts, clients, options.seconds))
        for name, runs in rounds.items():
            keys = runs[0]
            found[name][str(clients)] = {
                key: round(statistics.median(run[key] for run in runs), 3) for key in keys
            }
            print(clients, name, found[name][str(clients)], file=sys.stderr, flush=True)
        figures.add(servers=found)


async def _load(url: str, texts: Sequence[str], clients: int, seconds: float) -> dict[str, float]:
    import aiohttp
    import numpy as np

    latency: list[float] = []
    model: list[float] = []
    asked = 0
    end = time.perf_counter() + seconds
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def client() -> None:
            nonlocal asked
            while time.perf_counter() < end:
                body = _asked(url, texts[asked % len(texts)])
                asked += 1
                began = time.perf_counter()
                async with session.post(url, json=body) as answer:
                    await answer.read()
                    assert answer.status == 200, await answer.text()
                    told = answer.headers
                latency.append(time.perf_counter() - began)
                parts = ("x-tokenization-time", "x-inference-time")
                model.append(sum(float(told.get(part, 0)) for part in parts))

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(clients)))
        took = time.perf_counter() - began
    return {
        "requests_per_second": len(latency) / took,
        "p50_ms": float(np.percentile(latency, 50)) * 1000,
        "p99_ms": float(np.percentile(latency, 99)) * 1000,
        "model_p50_ms": float(np.percentile(model, 50)),
        "overhead_p50_ms": float(np.percentile(np.array(latency) * 1000 - np.array(model), 50)),
    }


def _summary(servers: dict[str, Any]) -> dict[str, float]:
    at = "32" if "32" in servers["ours"] else list(servers["ours"])[-1]
    one = next(iter(servers["ours"]))
    overhead = servers["ours"][one]["overhead_p50_ms"] - servers["empty"][one]["p50_ms"]
    found = {"overhead_over_empty_app_ms": overhead}
    if "plain" in servers:
        ours, plain = servers["ours"][at], servers["plain"][at]
        rates = ours["requests_per_second"], plain["requests_per_second"]
        found["throughput_ratio_vs_plain"] = rates[0] / rates[1]
        found["p99_ratio_vs_plain"] = ours["p99_ms"] / plain["p99_ms"]
    return found


if __name__ == "__main__":
    raise SystemExit(main())
