"""How well two sets of texts can be told apart: the AUC of a classifier that tries to."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llmembed.evaluation.gaps import LEVEL, two_sided

ROWS = 5_000
"""Distinct texts of each side at most: a standard error of .01 of an AUC."""
FEWEST = 30
"""Distinct texts of each side at least; of fewer nothing is said."""
CHARACTERS = 4_000
"""Of each text that are read, from its beginning."""
FOLDS = 3
WIDTH = 256
"""Wider features are projected to this many directions drawn at random."""
TERMS = 1 << 17
"""Columns that words are hashed to."""
LEAST_AUC = 0.55
_SIGNS = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_WORDS = re.compile(rf"[{_SIGNS}]|[^\W{_SIGNS}]+")

Embed = Callable[[Sequence[str]], npt.NDArray[Any]]
"""Texts -> their features, float (N, F)."""


@dataclass(frozen=True, kw_only=True)
class Separation:
    """``auc``: of a logistic regression that tells the texts of one set from those of the other,
    on texts it was not fitted on; .5 where it can't, 1 where it always can. ``error``: the standard
    deviation, at most, of the AUC of sets of one kind. ``texts``: of each side, distinct ones."""

    auc: float
    error: float
    texts: int

    @property
    def distance(self) -> float:
        """From 0, alike, to 1: by how much more often than its opposite the guess is right."""
        return max(0.0, 2 * self.auc - 1)

    @property
    def beyond_chance(self) -> bool:
        return self.auc >= LEAST_AUC and two_sided(self.auc - 0.5, self.error) <= LEVEL

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Separation:
        return cls(**data)


def words_of(text: str) -> list[str]:
    """In lower case; scripts without spaces (Chinese, Japanese, Korean) give their signs."""
    return _WORDS.findall(text[:CHARACTERS].lower())


def drawn(texts: Sequence[str], most: int, seed: int) -> list[str]:
    """At most ``most`` of ``texts``, in their order, drawn by ``seed``."""
    if len(texts) <= most:
        return list(texts)
    rows = np.random.default_rng(seed).choice(len(texts), most, replace=False)
    return [texts[row] for row in np.sort(rows)]


def both_sides(
    one: Sequence[str], other: Sequence[str], *, most: int = ROWS, seed: int = 0
) -> tuple[list[str], list[str]] | None:
    """Equally many distinct texts of each side, ``most`` at most; None of fewer than ``FEWEST``.

    Distinct, since copies of a text on one side only would give that side away."""
    sides = list(dict.fromkeys(one)), list(dict.fromkeys(other))
    n = min(most, *map(len, sides))
    if n < FEWEST:
        return None
    return drawn(sides[0], n, seed), drawn(sides[1], n, seed + 1)


def told_apart_by_words(
    one: Sequence[str], other: Sequence[str], *, seed: int = 0
) -> Separation | None:
    """By the TF-IDF of their words; both from ``both_sides``. None where they hold no words."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    hashed = HashingVectorizer(
        n_features=TERMS, alternate_sign=False, norm=None, analyzer=words_of, dtype=np.float32
    ).transform([*one, *other])
    if not hashed.nnz:
        return None
    rows = TfidfTransformer(sublinear_tf=True).fit_transform(hashed)
    return _told_apart(rows, one, other, seed=seed)


def told_apart_by(
    embed: Embed, one: Sequence[str], other: Sequence[str], *, seed: int = 0
) -> Separation:
    """By the features that ``embed`` gives of them; both from ``both_sides``."""
    rows = np.asarray(embed([*one, *other]), dtype=np.float32)
    if rows.shape[1] > WIDTH:
        directions = np.random.default_rng(seed).standard_normal((rows.shape[1], WIDTH))
        rows = rows @ (directions / math.sqrt(WIDTH)).astype(np.float32)
    spread = rows.std(axis=0)
    rows = (rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1)
    # Columns of spread 1: a penalty in proportion to their number keeps logits of order 1.
    return _told_apart(rows, one, other, seed=seed, inverse_penalty=1 / rows.shape[1])


def _told_apart(
    rows: Any,
    one: Sequence[str],
    other: Sequence[str],
    *,
    seed: int,
    inverse_penalty: float = 1.0,
) -> Separation:
    """``rows``: (N, F), those of ``one`` and then those of ``other``."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    side = np.repeat([0, 1], [len(one), len(other)])
    fold = _folds(one, other, seed)
    found = []
    for held in range(FOLDS):
        model = LogisticRegression(C=inverse_penalty, max_iter=100, tol=1e-3)
        model.fit(rows[fold != held], side[fold != held])
        scores = model.decision_function(rows[fold == held])
        found.append(roc_auc_score(side[fold == held], scores))
    # Of Mann and Whitney's statistic on one fold: fits share texts, so that the mean over folds may
    # vary as much as one of them does.
    each = len(one) / FOLDS
    error = math.sqrt((2 * each + 1) / (12 * each**2))
    return Separation(auc=float(np.mean(found)), error=error, texts=len(one))


def _folds(one: Sequence[str], other: Sequence[str], seed: int) -> npt.NDArray[np.int64]:
    """The fold of each text, int64 (N,): a text of both sides is in one fold, so that neither of
    its copies tells of the other."""
    rng = np.random.default_rng(seed)
    place: dict[str, int] = {}
    for side in (one, other):
        new = [text for text in side if text not in place]
        place |= {new[i]: rank % FOLDS for rank, i in enumerate(rng.permutation(len(new)))}
    return np.array([place[text] for text in (*one, *other)], dtype=np.int64)
