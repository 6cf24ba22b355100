"""The hub's side of benchmarks: a small HTTP server on the loopback answers as the hub does."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def parquet(table: pa.Table, **class_labels: list[str]) -> bytes:
    features = {
        name: {"names": names, "_type": "ClassLabel"} for name, names in class_labels.items()
    }
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    return sink.getvalue()


def repositories() -> dict[str, dict[str, bytes]]:
    groups: dict[str, bytes] = {}
    for name in ("alt.atheism", "rec.autos"):
        for split, count in {"train": 30, "test": 5}.items():
            table = pa.table({"text": [f"From: {name} {split} {i}" for i in range(count)]})
            groups[f"bydate_{name}/{split}/0000.parquet"] = parquet(table)
            groups[f"18828_{name}/{split}/0000.parquet"] = parquet(table)
    sentences = pa.table({"sentence": [f"s {i} " for i in range(40)], "label": [0, 1] * 20})
    massive = pa.table(
        {
            "utt": [f"wake me at {i}" for i in range(40)],
            "annot_utt": [f"wake me at [time : {i}]" for i in range(40)],
            "intent": [0, 1] * 20,
            "scenario": ["alarm", "play"] * 20,
        }
    )
    return {
        "google-research-datasets/newsgroup": groups,
        "stanfordnlp/sst2": {
            "README.md": b"",
            "data/train-00000-of-00001.parquet": parquet(sentences, label=["negative", "positive"]),
            "data/validation-00000-of-00001.parquet": parquet(
                sentences.slice(0, 10), label=["negative", "positive"]
            ),
            "data/test-00000-of-00001.parquet": parquet(
                pa.table({"sentence": ["hidden"] * 5, "label": [-1] * 5}),
                label=["negative", "positive"],
            ),
        },
        "AmazonScience/massive": {
            f"en-US/{split}/0000.parquet": parquet(massive, intent=["alarm_set", "play_music"])
            for split in ("train", "validation", "test")
        },
    }


class Hub(http.server.BaseHTTPRequestHandler):
    repositories = repositories()

    def log_message(self, *args: object) -> None:
        return

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.replace("%2F", "/").partition("?")[0]
        for name, files in self.repositories.items():
            if path.startswith(f"/api/datasets/{name}/tree/{COMMIT}"):
                return self.answer(self.tree(path.partition(COMMIT)[2].strip("/"), files))
            if path.startswith(f"/api/datasets/{name}"):
                siblings = [{"rfilename": file} for file in files]
                body = {"id": name, "sha": COMMIT, "siblings": siblings, "private": False}
                return self.answer(json.dumps(body).encode())
            start = f"/datasets/{name}/resolve/{COMMIT}/"
            if path.startswith(start) and path.removeprefix(start) in files:
                return self.answer(files[path.removeprefix(start)])
        self.send_response(404)
        self.end_headers()
        return None

    def tree(self, folder: str, files: dict[str, bytes]) -> bytes:
        inside = {f: b for f, b in files.items() if f.rpartition("/")[0] == folder}
        entries = [
            {"type": "file", "oid": "0" * 40, "size": len(body), "path": file}
            for file, body in inside.items()
        ]
        folders = {f.partition("/")[0] for f in files if "/" in f} if not folder else set()
        entries += [{"type": "directory", "oid": "0" * 40, "path": path} for path in folders]
        return json.dumps(entries).encode()

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


LOAD = """
import json, sys
from llmembed.errors import LlmembedError
from llmembed.texts import Columns, CorpusSource, load_corpus
try:
    if "/" in sys.argv[1]:
        source = CorpusSource.hub(
            sys.argv[1],
            columns=Columns(text="sentence"),
            splits=json.loads(sys.argv[3]),
        )
    else:
        source = CorpusSource.benchmark(sys.argv[1])
    c = load_corpus(source, quarantine_folder=sys.argv[2])
except LlmembedError as error:
    print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
    sys.exit()
print(json.dumps({
    "name": c.name, "rows": [len(part) for part in c.splits.values()], "partial": c.partial,
    "classes": {t.name: t.classes for t in c.tasks}, "notes": dict(c.notes),
    "text": c.valid.texts[0] if c.test is None else c.test.texts[0],
    "words": c.valid.words and c.valid.words[0],
}))
"""


def load(  # type: ignore[type-arg]
    name: str, endpoint: str, folder: Path, splits: dict[str, str] | None = None
) -> dict:
    """In a process of its own: the hub's client reads its settings when it is imported."""
    environment = {k: v for k, v in os.environ.items() if k != "LLMEMBED_DATA_DIR"}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder), "HF_HUB_OFFLINE": "0"}
    out = subprocess.run(
        [sys.executable, "-c", LOAD, name, str(folder), json.dumps(splits or {})],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout)  # type: ignore[no-any-return]


def test_each_newsgroup_is_labelled_by_its_configuration(endpoint: str, tmp_path: Path) -> None:
    found = load("20ng", endpoint, tmp_path)
    assert found["classes"] == {"topic": ["alt.atheism", "rec.autos"], "root": ["alt", "rec"]}
    assert found["rows"] == [54, 6, 10]
    assert found["name"] == "20ng-part"
    assert found["partial"] == "60 of 11314 training rows, 10 of 7532 test rows"
    assert found["notes"]["revision"] == COMMIT


def test_sst2_names_its_classes_and_drops_trailing_spaces(endpoint: str, tmp_path: Path) -> None:
    found = load("sst2", endpoint, tmp_path)
    assert found["classes"] == {"label": ["negative", "positive"]}
    assert found["rows"] == [36, 4, 10]
    assert found["text"] == "s 0"


def test_massive_reads_slots_from_the_markup(endpoint: str, tmp_path: Path) -> None:
    found = load("massive-en", endpoint, tmp_path)
    assert found["rows"] == [40, 40, 40]
    assert found["classes"]["intent"] == ["alarm_set", "play_music"]
    assert found["classes"]["slots"] == ["O", "B-time"]
    assert found["words"] == ["wake", "me", "at", "0"]


def test_any_data_set_of_the_hub(endpoint: str, tmp_path: Path) -> None:
    splits = {"train": "train", "test": "validation"}
    found = load("stanfordnlp/sst2", endpoint, tmp_path, splits)
    assert (found["name"], found["rows"], found["partial"]) == ("sst2", [36, 4, 10], None)
    assert found["classes"] == {"label": ["negative", "positive"]}
    assert found["notes"]["revision"] == COMMIT
    found = load("stanfordnlp/sst2", endpoint, tmp_path)
    assert found["rows"] == [40, 10]
    assert found["notes"]["no_test"] == "split test has no labels and is left out"
    assert found["notes"]["valid"] == "the source's own validation rows"


def test_a_hub_that_does_not_answer_is_the_users_news(endpoint: str, tmp_path: Path) -> None:
    found = load("r8", endpoint, tmp_path)
    assert found["error"].startswith("DataError: can't reach data set dxgp/R8 on the hub")
    assert "LLMEMBED_DATA_DIR" in found["error"]
