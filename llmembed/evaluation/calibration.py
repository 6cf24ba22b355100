"""Temperature scaling of probabilities; the temperature is fitted on validation texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llmembed.contract import Kind
from llmembed.errors import UnsupportedError
from llmembed.heads import calibration

_EPSILON = 1e-7


def apply_temperature(
    scores: npt.NDArray[np.float32], temperature: float, *, kind: Kind
) -> npt.NDArray[np.float32]:
    """Scores (N, C) softened (above 1) or sharpened (below 1); the order of classes stays.

    Softmax of log p / T for ``single`` and ``tokens``; sigmoid of logit(p) / T for ``multi``.
    """
    scaled = _logits(scores, kind) / temperature
    if kind == "multi":
        softened = np.exp(-np.logaddexp(0, -scaled))
    else:
        softened = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        softened /= softened.sum(axis=-1, keepdims=True)
    return softened.astype(np.float32)


def fit_temperature(
    scores: npt.NDArray[np.float32] | None, labels: npt.NDArray[Any], *, kind: Kind
) -> float:
    """The temperature in [0.05, 20] of the least negative log-likelihood of ``labels`` (as in
    ``Examples.labels``) under ``scores`` (N, C).

    Raises:
        UnsupportedError: the method gives no scores.
    """
    if scores is None:
        raise UnsupportedError("a method without scores can't be calibrated")
    truth = np.asarray(labels, dtype=bool if kind == "multi" else np.int64)
    return calibration.fit_temperature(_logits(scores, kind), truth, kind, least=0.05)


def _logits(scores: npt.NDArray[np.float32], kind: Kind) -> npt.NDArray[np.float64]:
    """(N, C): log p, for ``multi`` log p - log (1 - p)."""
    p = np.clip(scores.astype(np.float64), _EPSILON, 1.0 - _EPSILON)
    logits: npt.NDArray[np.float64] = np.log(p) - np.log(1.0 - p) if kind == "multi" else np.log(p)
    return logits
