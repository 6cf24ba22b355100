"""Temperature scaling of probabilities (Guo et al. 2017), fitted on validation texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llmembed.contract import Kind
from llmembed.errors import UnsupportedError

_EPSILON = 1e-7
_LOG_RANGE = (np.log(0.05), np.log(20.0))
_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


def apply_temperature(
    scores: npt.NDArray[np.float32], temperature: float, *, kind: Kind
) -> npt.NDArray[np.float32]:
    """Scores (N, C) softened (above 1) or sharpened (below 1); the order of classes stays.

    Softmax of log p / T for ``single`` and ``tokens``; sigmoid of logit(p) / T for ``multi``.
    """
    softened = np.exp(_log_probabilities(_logits(scores, kind), temperature, kind))
    return softened[..., 0].astype(np.float32) if kind == "multi" else softened.astype(np.float32)


def fit_temperature(
    scores: npt.NDArray[np.float32] | None, labels: npt.NDArray[Any], *, kind: Kind
) -> float:
    """The temperature in [0.05, 20] of the least negative log-likelihood of ``labels`` (as in
    ``Examples.labels``) under ``scores`` (N, C); golden section, as the likelihood has one peak.

    Raises:
        UnsupportedError: the method gives no scores.
    """
    if scores is None:
        raise UnsupportedError("a method without scores can't be calibrated")
    logits = _logits(scores, kind)
    if kind == "multi":
        truth = np.where(np.asarray(labels, dtype=bool), 0, 1)[..., None]
    else:
        truth = np.asarray(labels, dtype=np.int64)[:, None]

    def loss(log_temperature: float) -> float:
        logs = _log_probabilities(logits, float(np.exp(log_temperature)), kind)
        return -float(np.take_along_axis(logs, truth, axis=-1).mean())

    low, high = _LOG_RANGE
    a, b = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    loss_a, loss_b = loss(a), loss(b)
    while high - low > 1e-4:
        if loss_a <= loss_b:
            high, b, loss_b = b, a, loss_a
            a = high - _GOLDEN * (high - low)
            loss_a = loss(a)
        else:
            low, a, loss_a = a, b, loss_b
            b = low + _GOLDEN * (high - low)
            loss_b = loss(b)
    return float(np.exp((low + high) / 2))


def _logits(scores: npt.NDArray[np.float32], kind: Kind) -> npt.NDArray[np.float64]:
    """log p, (N, C); for ``multi`` log p and log (1 - p) of each class, (N, C, 2)."""
    p = np.clip(scores.astype(np.float64), _EPSILON, 1.0 - _EPSILON)
    return np.log(np.stack([p, 1.0 - p], axis=-1) if kind == "multi" else p)


def _log_probabilities(
    logits: npt.NDArray[np.float64], temperature: float, kind: Kind
) -> npt.NDArray[np.float64]:
    scaled = logits / temperature
    scaled -= scaled.max(axis=-1, keepdims=True)
    normalised: npt.NDArray[np.float64] = scaled - np.log(
        np.exp(scaled).sum(axis=-1, keepdims=True)
    )
    return normalised
