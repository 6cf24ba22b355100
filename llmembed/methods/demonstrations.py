"""Which training texts are shown in a prompt: none, a balanced draw, or each text's nearest."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from llmembed.backbones import View
from llmembed.contract import Examples, Runtime, Task, Usage
from llmembed.errors import ConfigError, UnsupportedError
from llmembed.metering import Meter
from llmembed.methods.views import ViewReader

Kind = Literal["none", "random", "nearest"]
KINDS: tuple[Kind, ...] = ("none", "random", "nearest")
VIEW = "nearest"
FILE = "demonstrations.json"
VECTORS = "demonstrations"


@dataclass(frozen=True, kw_only=True)
class Demonstrations:
    """``pool``: the training texts that may be shown; ``vectors``: theirs, float32 (M, F) of
    length 1, for ``nearest``."""

    kind: Kind
    k: int
    pool: Examples
    vectors: npt.NDArray[np.float32] | None = None
    reader: ViewReader | None = None
    _made: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def choose(
        self, texts: Sequence[str], runtime: Runtime | None
    ) -> tuple[list[list[int]], Usage]:
        """For each text the rows of ``pool`` to show, farthest first and nearest last, and what
        finding them took, embedding the texts included."""
        if self.kind != "nearest" or not texts:
            return [list(range(len(self.pool))) for _ in texts], Usage()
        assert self.vectors is not None and self.reader is not None
        queries, usage = unit_vectors(self.reader, texts, runtime)
        with Meter() as meter:
            k = min(self.k, len(self.vectors))
            _, rows = self._index.search(queries, k)
        return [[int(row) for row in reversed(found)] for found in rows], usage + meter.usage

    @cached_property
    def _index(self) -> Any:
        """Exact inner products."""
        try:
            import faiss
        except ImportError as error:
            raise UnsupportedError(
                "nearest demonstrations need faiss: pip install 'llmembed[prompt]'"
            ) from error
        assert self.vectors is not None
        index = faiss.IndexFlatIP(self.vectors.shape[1])
        index.add(np.ascontiguousarray(self.vectors))
        return index

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """What is saved as safetensors."""
        return {} if self.vectors is None else {VECTORS: self.vectors}

    def save(self, folder: Path) -> None:
        """Write all but ``arrays``."""
        folder.mkdir(parents=True, exist_ok=True)
        written = json.dumps(self._to_json(), ensure_ascii=False)
        (folder / FILE).write_text(written, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> Demonstrations:
        written = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return cls._from_json(written, arrays.get(VECTORS))

    def _to_json(self) -> dict[str, Any]:
        labels = {name: values.tolist() for name, values in self.pool.labels.items()}
        words = self.pool.words
        return {
            "kind": self.kind,
            "k": self.k,
            "texts": list(self.pool.texts),
            "labels": labels,
            "words": None if words is None else [list(each) for each in words],
            "view": None if self.reader is None else self.reader.views[VIEW].to_json(),
        }

    @classmethod
    def _from_json(
        cls, data: Mapping[str, Any], vectors: npt.NDArray[np.float32] | None
    ) -> Demonstrations:
        labels = {name: np.array(v, dtype=np.int64) for name, v in data["labels"].items()}
        view = data["view"]
        return cls(
            kind=data["kind"],
            k=data["k"],
            pool=Examples(texts=data["texts"], labels=labels, words=data["words"]),
            vectors=vectors,
            reader=None if view is None else view_reader(View.from_json(view)),
        )


def gather(
    kind: Kind,
    k: int,
    tasks: Sequence[Task],
    train: Examples,
    *,
    view: View | None,
    seed: int,
    runtime: Runtime,
) -> tuple[Demonstrations, Usage]:
    """The demonstrations that ``train`` gives, and what embedding it took.

    Raises:
        ConfigError: nearest texts are asked for without a view to compare them in.
    """
    if kind not in KINDS:
        raise ConfigError(f"unknown demonstrations {kind!r}; known are {', '.join(KINDS)}")
    if kind == "none" or k == 0:
        return Demonstrations(kind="none", k=0, pool=_only(train.select([]), tasks)), Usage()
    if k < 0:
        raise ConfigError(f"k is {k}: a prompt shows 0 or more demonstrations")
    if kind == "random":
        rows = balanced_rows(tasks, train, k, seed)
        return Demonstrations(kind=kind, k=k, pool=_only(train.select(rows), tasks)), Usage()
    if view is None:
        raise ConfigError(
            "nearest demonstrations need a view, such as `encoder mean:1`, whose vectors say "
            "which texts are near"
        )
    reader = view_reader(view)
    vectors, usage = unit_vectors(reader, train.texts, runtime)
    pool = _only(train, tasks)
    return Demonstrations(kind=kind, k=k, pool=pool, vectors=vectors, reader=reader), usage


def balanced_rows(tasks: Sequence[Task], train: Examples, k: int, seed: int) -> list[int]:
    """``k`` rows of ``train``, drawn by ``seed``: of the first task of one label as many of each
    class as of any other, give or take one; in mixed order."""
    rng = np.random.default_rng(seed)
    k = min(k, len(train))
    single = [task for task in tasks if task.kind == "single"]
    if not single:
        return [int(row) for row in rng.choice(len(train), size=k, replace=False)]
    labels = train.labels[single[0].name]
    queues = [list(rng.permutation(np.flatnonzero(labels == c))) for c in np.unique(labels)]
    chosen: list[int] = []
    while len(chosen) < k:
        waiting = [queue for queue in queues if queue]
        for place in rng.permutation(len(waiting))[: k - len(chosen)]:
            chosen.append(int(waiting[place].pop()))
    return [chosen[place] for place in rng.permutation(len(chosen))]


def view_reader(view: View) -> ViewReader:
    """Reads the one view in which texts are compared."""
    return ViewReader(views={VIEW: view})


def unit_vectors(
    reader: ViewReader, texts: Sequence[str], runtime: Runtime | None
) -> tuple[npt.NDArray[np.float32], Usage]:
    """Vectors float32 (N, F) of length 1, and what they took."""
    with reader.metered(texts, runtime) as views:
        rows = np.asarray(views[VIEW], dtype=np.float32)
        vectors = rows.reshape(len(rows), math.prod(rows.shape[1:]))
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.maximum(norms, 1e-12)
    return vectors, reader.last_usage


def _only(examples: Examples, tasks: Sequence[Task]) -> Examples:
    """``examples`` with the labels of ``tasks`` alone."""
    labels = {task.name: examples.labels[task.name] for task in tasks}
    words = examples.words if any(task.kind == "tokens" for task in tasks) else None
    return Examples(texts=list(examples.texts), labels=labels, words=words)
