"""TF-IDF by scikit-learn that is saved as terms and numbers, not as a pickle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from llmembed.errors import DataError


class TfIdf:
    """Texts -> sparse float32 (N, F): words and runs of up to ``word_ngrams`` words; or, with
    ``char_ngrams`` (a, b), runs of a to b characters inside words, their ends marked by a space.

    Term frequencies count as 1 + log tf, rows have length 1. Terms of a single training text are
    left out and the ``max_terms`` most frequent of the others are kept (None keeps all).
    """

    def __init__(
        self,
        *,
        word_ngrams: int = 2,
        max_terms: int | None = 50_000,
        char_ngrams: tuple[int, int] | None = None,
    ) -> None:
        self.word_ngrams = word_ngrams
        self.max_terms = max_terms
        self.char_ngrams = char_ngrams
        self._model: Any = None

    def _vectoriser(self, vocabulary: Sequence[str] | None, min_df: int) -> Any:
        from sklearn.feature_extraction.text import TfidfVectorizer

        return TfidfVectorizer(
            sublinear_tf=True,
            analyzer="char_wb" if self.char_ngrams else "word",
            ngram_range=self.char_ngrams or (1, self.word_ngrams),
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
            "over characters, such as ngrams of the recipe compare, or over a model's tokens, such "
            "as probe, may tell them apart"
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


class NGrams:
    """Words and their runs beside characters inside words: several ``TfIdf`` side by side, divided
    by the root of their number so that a row's length is at most 1.

    ``char_ngrams`` None: words alone; ``word_ngrams`` 0: characters alone. ``max_terms``: of each.
    """

    def __init__(
        self,
        *,
        word_ngrams: int = 2,
        char_ngrams: tuple[int, int] | None = (2, 5),
        max_terms: int = 200_000,
    ) -> None:
        self.parts = [TfIdf(word_ngrams=word_ngrams, max_terms=max_terms)] if word_ngrams else []
        if char_ngrams is not None:
            self.parts.append(TfIdf(char_ngrams=char_ngrams, max_terms=max_terms))

    def fit_transform(self, texts: Sequence[str]) -> Any:
        """As ``TfIdf.fit_transform``; where texts have characters and no words these alone."""
        rows, parts = [], []
        for part in self.parts:
            try:
                rows.append(part.fit_transform(texts))
                parts.append(part)
            except DataError:
                if part is self.parts[-1] and not parts:
                    raise
        self.parts = parts
        return _joined(rows)

    def transform(self, texts: Sequence[str]) -> Any:
        """Sparse float32 (N, F)."""
        return _joined([part.transform(texts) for part in self.parts])

    def to_json(self) -> list[dict[str, Any]]:
        """What each part counts, and its terms in the order of the columns."""
        return [
            {
                "word_ngrams": part.word_ngrams,
                "char_ngrams": part.char_ngrams and list(part.char_ngrams),
                "terms": part.terms,
            }
            for part in self.parts
        ]

    @property
    def idf(self) -> npt.NDArray[np.float32]:
        """Inverse document frequencies of all parts (F,)."""
        return np.concatenate([part.idf for part in self.parts])

    @classmethod
    def from_json(cls, parts: Sequence[Mapping[str, Any]], idf: npt.NDArray[np.float32]) -> NGrams:
        """What ``to_json`` and ``idf`` gave. Raises ``ValueError`` where they do not fit."""
        made = cls()
        made.parts = []
        start = 0
        for described in parts:
            chars = described["char_ngrams"]
            part = TfIdf(
                word_ngrams=described["word_ngrams"],
                char_ngrams=chars and (int(chars[0]), int(chars[1])),
                max_terms=None,
            )
            end = start + len(described["terms"])
            made.parts.append(part.restore(described["terms"], idf[start:end]))
            start = end
        if start != len(idf):
            raise ValueError("terms and inverse document frequencies do not fit")
        return made


def _joined(rows: Sequence[Any]) -> Any:
    """Parts of the same texts side by side."""
    from scipy.sparse import hstack

    if len(rows) == 1:
        return rows[0]
    whole = hstack(rows, format="csr", dtype=np.float32)
    whole.data /= np.sqrt(np.float32(len(rows)))
    return whole
