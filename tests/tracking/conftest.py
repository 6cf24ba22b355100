"""MLflow databases that are there already, and a classifier to register."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmembed.tracking import Tracking, pyfunc


@pytest.fixture
def files(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A files folder that already holds an empty database."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "files").mkdir()
    shutil.copy(empty_database, tmp_path / "files" / "mlflow.db")
    return tmp_path / "files"


@pytest.fixture
def tracking(files: Path) -> Tracking:
    return Tracking(experiment="r8", files=files)


TINY = '''
"""A classifier by one key word, saved as JSON."""
import json
from pathlib import Path

import numpy as np

from llmembed.contract import Prediction, Task, Usage


class Keyword:
    method = "keyword"
    fit_usage = Usage()
    parameters_trained = 0
    tasks = (
        Task(name="topic", classes=("other", "grain")),
        Task(name="about", classes=("wheat", "corn"), kind="multi"),
        Task(name="tags", classes=("O", "B-crop"), kind="tokens"),
    )

    def __init__(self, word, scored=True):
        self.word, self.scored = word, scored

    def predict(self, texts, runtime=None):
        hit = np.array([self.word in text for text in texts], dtype=bool).reshape(-1)
        score = np.where(hit, 0.75, 0.25).astype(np.float32)
        single = np.stack([1 - score, score], axis=1)
        unread = np.array([text == "?" for text in texts], dtype=bool).reshape(-1)
        none = np.zeros(len(texts), dtype=bool)
        words = [text.split() for text in texts]
        tags = np.array([int(w in ("wheat", "corn")) for ws in words for w in ws], dtype=np.int64)
        offsets = np.cumsum([0] + [len(ws) for ws in words]).astype(np.int64)
        about = np.array([["wheat" in t, "corn" in t] for t in texts], dtype=bool).reshape(-1, 2)
        return {
            "topic": Prediction(
                labels=np.where(unread, -1, hit.astype(np.int64)),
                scores=single if self.scored else None,
                invalid=unread,
            ),
            "about": Prediction(
                labels=about,
                scores=np.where(about, 0.9, 0.1).astype(np.float32) if self.scored else None,
                invalid=none,
            ),
            "tags": Prediction(
                labels=tags,
                scores=np.eye(2, dtype=np.float32)[tags] if self.scored else None,
                invalid=none,
                offsets=offsets,
            ),
        }

    def save(self, folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        settings = {"word": self.word, "scored": self.scored}
        (Path(folder) / "keyword.json").write_text(json.dumps(settings))


def load(folder):
    return Keyword(**json.loads((Path(folder) / "keyword.json").read_text()))
'''


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., object]]:
    """The class of a small classifier, importable as ``llmembed.tiny_keyword`` during the test,
    so that it is loaded the way methods are; ``tmp_path/plugin`` holds it for other processes."""
    import sys

    import llmembed

    folder = tmp_path / "plugin"
    folder.mkdir()
    (folder / "tiny_keyword.py").write_text(TINY)
    monkeypatch.setattr(llmembed, "__path__", [*llmembed.__path__, str(folder)])
    from importlib import import_module

    monkeypatch.setattr(pyfunc, "LOADERS", (*pyfunc.LOADERS, "llmembed.tiny_keyword:load"))
    yield import_module("llmembed.tiny_keyword").Keyword
    sys.modules.pop("llmembed.tiny_keyword", None)
