"""A view made of the words themselves: TF-IDF reduced by a truncated SVD.

It is fitted on the training texts and saved with the classifier; a frozen backbone's view is not
changed by it. Ours, not in the paper.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llmembed.errors import DataError, ModelError
from llmembed.fusion.tfidf import TfIdf

WEIGHTS = "lexical.safetensors"
SETTINGS = "lexical.json"


class LexicalView:
    """Texts -> (N, 1, D), float32: TF-IDF of words and pairs of words, reduced to ``width``.

    Term frequencies count as 1 + log tf. Terms of a single training text are left out and the
    ``max_terms`` most frequent of the others are kept. With fewer texts or terms than ``width``
    the view is narrower. The same texts and ``seed`` give the same view.
    """

    def __init__(self, *, width: int = 256, max_terms: int = 20_000, seed: int = 0) -> None:
        if width < 1 or max_terms < 1:
            raise DataError(
                f"a lexical view of width {width} over {max_terms} terms: expected 1 or more"
            )
        self.wanted = width
        self.max_terms = max_terms
        self.seed = seed
        self._tfidf: Any = None
        self._components: npt.NDArray[np.float32] | None = None

    @property
    def width(self) -> int:
        """D once fitted."""
        assert self._components is not None, "fit or load first"
        return len(self._components)

    def fit(self, texts: Sequence[str]) -> LexicalView:
        """Learn terms and reduction from the training texts; returns itself.

        Raises ``DataError`` when the texts hold no words.
        """
        from sklearn.utils.extmath import randomized_svd
        from threadpoolctl import threadpool_limits

        tfidf = TfIdf(word_ngrams=2, max_terms=self.max_terms)
        counted = tfidf.fit_transform(texts)
        rank = min(self.wanted, *counted.shape)
        # One thread: the factors are narrow, and the result must not depend on the cores there are.
        with threadpool_limits(1):
            _, _, right = randomized_svd(
                counted, n_components=rank, n_iter=5, random_state=self.seed
            )
        self._tfidf = tfidf
        self._components = np.ascontiguousarray(right, dtype=np.float32)
        return self

    def transform(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 (N, 1, D). A text without known words is all zeros."""
        if self._components is None:
            raise DataError("the lexical view is not fitted yet")
        counted = self._tfidf.transform(texts)
        reduced = np.asarray(counted @ self._components.T, dtype=np.float32)
        return reduced[:, None, :]

    def save(self, folder: Path) -> None:
        """Write ``lexical.safetensors`` (idf, components) and ``lexical.json`` (terms)."""
        from safetensors.numpy import save_file

        if self._components is None:
            raise DataError("the lexical view is not fitted yet")
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"idf": self._tfidf.idf, "components": self._components}, folder / WEIGHTS)
        settings = {
            "width": self.wanted,
            "max_terms": self.max_terms,
            "seed": self.seed,
            "terms": self._tfidf.terms,
        }
        text = json.dumps(settings, ensure_ascii=False) + "\n"
        (folder / SETTINGS).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> LexicalView:
        """Read what ``save`` wrote; raises ``ModelError`` when a file is missing or broken."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
            arrays = load_file(folder / WEIGHTS)
            view = cls(
                width=settings["width"], max_terms=settings["max_terms"], seed=settings["seed"]
            )
            tfidf = TfIdf(word_ngrams=2, max_terms=view.max_terms)
            view._tfidf = tfidf.restore(settings["terms"], arrays["idf"])
            view._components = arrays["components"]
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise ModelError(f"no readable lexical view in {folder}: {error}") from error
        if view._components.shape[1] != len(settings["terms"]):
            raise ModelError(f"the lexical view in {folder} has terms and weights that do not fit")
        return view
