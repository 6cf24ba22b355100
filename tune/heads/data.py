"""What trials read: memory-mapped embeddings, the same file for all of them, and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmembed.contract import Runtime, Task
from tune.heads.space import Configuration, Shapes

if TYPE_CHECKING:
    from llmembed.backbones import View
    from llmembed.texts import Corpus


@dataclass(frozen=True, kw_only=True)
class SharedData:
    """Small enough to be sent to every trial: paths, places and labels.

    ``arrays``: backbone fingerprint -> ``.npy`` of (N, R, D), training rows first, then validation.
    ``lexical``: width -> ``.npy`` of (N, 1, D). ``views``: name -> (fingerprint, places in R).
    ``copies``: references to the arrays in Ray's object store, for nodes that don't see the files.
    """

    tasks: tuple[Task, ...]
    arrays: Mapping[str, str]
    views: Mapping[str, tuple[str, tuple[int, ...]]]
    shapes: Shapes
    train_rows: int
    labels: Mapping[str, np.ndarray]
    valid_labels: Mapping[str, np.ndarray]
    lexical: Mapping[int, str] = field(default_factory=dict)
    copies: Mapping[str, Any] = field(default_factory=dict)

    def read(self, c: Configuration) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The configuration's views of the training and of the validation texts.

        Equal views are the same object in every call, so that groups know them as equal."""
        names = {"L": c.primary, **{name: name for name in c.extras}}
        both: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for name, view in names.items():
            fingerprint, places = self.views[view]
            if name == "L" and c.depths is not None:
                places = tuple(places[depth - 1] for depth in c.depths)
            both[name] = self._cut(self.arrays[fingerprint], places)
        if c.lexical:
            both["lexical"] = self._cut(self.lexical[c.lexical], None)
        return {n: v[0] for n, v in both.items()}, {n: v[1] for n, v in both.items()}

    def _cut(self, path: str, places: tuple[int, ...] | None) -> tuple[np.ndarray, np.ndarray]:
        return _parts(path, places, self.train_rows, self.copies.get(path))


@lru_cache(maxsize=256)
def _parts(
    path: str, places: tuple[int, ...] | None, train_rows: int, copy: Any
) -> tuple[np.ndarray, np.ndarray]:
    whole = _opened(path, copy)
    if places is not None:
        first, last = places[0], places[-1]
        side_by_side = places == tuple(range(first, last + 1))
        whole = whole[:, first : last + 1] if side_by_side else whole[:, list(places)]
    return whole[:train_rows], whole[train_rows:]


@lru_cache(maxsize=32)
def _opened(path: str, copy: Any) -> np.ndarray:
    if Path(path).is_file() or copy is None:
        mapped: np.ndarray = np.load(path, mmap_mode="r")
        return mapped
    import ray

    shared: np.ndarray = ray.get(copy)  # read-only, in the node's shared memory
    return shared


def share(
    corpus: Corpus,
    views: Mapping[str, View],
    runtime: Runtime,
    lexical_widths: Sequence[int],
    folder: Path,
    say: Any,
) -> SharedData:
    """Extract what is missing, once, and name the files every trial maps."""
    from llmembed.embeddings import embed

    texts = [*corpus.train.texts, *corpus.valid.texts]
    specs = {view.backbone.fingerprint(): view.backbone for view in views.values()}
    arrays = {}
    for fingerprint, spec in specs.items():
        embedded = embed(spec, texts, runtime)
        say(f"{spec.label}: {embedded.summary()}")
        assert embedded.path is not None
        arrays[fingerprint] = str(embedded.path)
    return SharedData(
        tasks=corpus.tasks,
        arrays=arrays,
        views={n: (v.backbone.fingerprint(), tuple(v.indices())) for n, v in views.items()},
        shapes={n: (len(v.reads), v.backbone.width) for n, v in views.items()},
        train_rows=len(corpus.train),
        labels={name: np.asarray(rows) for name, rows in corpus.train.labels.items()},
        valid_labels={name: np.asarray(rows) for name, rows in corpus.valid.labels.items()},
        lexical={width: _lexical(corpus, width, folder) for width in lexical_widths if width},
    )


def _lexical(corpus: Corpus, width: int, folder: Path) -> str:
    """TF-IDF reduced to ``width``, fitted on the training texts, as a file to map."""
    from llmembed.fusion.lexical import LexicalView

    view = LexicalView(width=width).fit(corpus.train.texts)
    parts = [view.transform(part.texts) for part in (corpus.train, corpus.valid)]
    path = folder / f"lexical-{width}.npy"
    np.save(path, np.concatenate(parts))
    return str(path)
