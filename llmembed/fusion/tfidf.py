"""TF-IDF by scikit-learn that is saved as terms and numbers, not as a pickle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from llmembed.errors import DataError


class TfIdf:
    """Texts -> sparse float32 (N, F): words and runs of up to ``word_ngrams`` words.

    Term frequencies count as 1 + log tf, rows have length 1. Terms of a single training text are
    left out and the ``max_terms`` most frequent of the others are kept (None keeps all).
    """

    def __init__(self, *, word_ngrams: int = 2, max_terms: int | None = 50_000) -> None:
        self.word_ngrams = word_ngrams
        self.max_terms = max_terms
        self._model: Any = None

    def _vectoriser(self, vocabulary: Sequence[str] | None, min_df: int) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        return TfidfVectorizer(
            sublinear_tf=True,
            ngram_range=(1, self.word_ngrams),
            min_df=min_df,
            max_features=self.max_terms,
            dtype=np.float32,
            vocabulary=None if vocabulary is None else list(vocabulary),
        )

    def fit_transform(self, texts: Sequence[str]) -> Any:
        """Learn the terms of the training texts; returns their rows.

        Raises ``DataError`` when the texts hold no words.
        """
        for min_df in (2, 1):  # a handful of texts may share no term at all
            model = self._vectoriser(None, min_df)
            try:
                rows = model.fit_transform(texts)
            except ValueError:
                continue
            self._model = model
            return rows
        raise DataError(
            "the training texts hold no words to count: signs and emoji alone are none; a method "
            "over a model's tokens, such as probe, may tell them apart"
        )

    def transform(self, texts: Sequence[str]) -> Any:
        """Sparse float32 (N, F). A text without known words is all zeros."""
        assert self._model is not None, "fit or restore first"
        if not len(texts):  # scikit-learn refuses
            from scipy.sparse import csr_matrix

            return csr_matrix((0, len(self._model.idf_)), dtype=np.float32)
        return self._model.transform(texts)

    @property
    def terms(self) -> list[str]:
        """The F terms, in the order of the columns."""
        return [str(term) for term in self._model.get_feature_names_out()]

    @property
    def idf(self) -> npt.NDArray[np.float32]:
        """Inverse document frequencies (F,)."""
        return np.asarray(self._model.idf_, dtype=np.float32)

    def restore(self, terms: Sequence[str], idf: npt.NDArray[np.float32]) -> TfIdf:
        """Become what ``terms`` and ``idf`` were taken from; returns itself. Raises
        ``ValueError`` where they do not fit each other."""
        model = self._vectoriser(terms, 1)
        model.idf_ = idf
        self._model = model
        return self
