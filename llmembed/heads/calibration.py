"""One temperature per task, fitted on validation (Guo et al., 2017); or a slope and an offset, of
answers that are no logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_GOLDEN = (np.sqrt(5.0) - 1.0) / 2.0


def fit_temperature(
    logits: npt.NDArray[np.floating],
    truth: npt.NDArray[Any],
    kind: str,
    *,
    least: float = 0.25,
    most: float = 20.0,
) -> float:
    """The T > 0 for which logits / T have the least cross-entropy to ``truth``.

    ``logits``: (N, C); ``truth``: (N, C) of yes and no for ``multi``, else class numbers (N,).
    Found by golden section over log T (the loss is unimodal in it). With every answer right the
    loss falls without end towards T = 0, so T is kept between ``least`` and ``most``.
    """
    logits = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        if kind == "multi":
            return float((np.logaddexp(0, scaled) - scaled * truth).mean())
        scaled -= scaled.max(axis=1, keepdims=True)
        right = np.take_along_axis(scaled, truth[:, None], axis=1)[:, 0]
        return float((np.log(np.exp(scaled).sum(axis=1)) - right).mean())

    low, high = float(np.log(least)), float(np.log(most))
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-4:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = loss(right)
    return float(np.exp((low + high) / 2))


FEWEST = 10
"""Texts of a class, and texts without it, from which it is calibrated alone."""


def fit_logits(
    answers: npt.NDArray[np.floating], truth: npt.NDArray[Any], kind: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Slope and offset, float32 (C,) each, by which ``answers`` (N, C) of a regression on 0 and 1
    become logits: one slope for ``single``; for ``multi`` those of Platt (1999) for each class, and
    common ones for a class of fewer than ``FEWEST`` texts."""
    count = answers.shape[1]
    if kind != "multi":
        slope = 1 / fit_temperature(answers, truth, kind, least=0.002, most=2.0)
        return np.full(count, slope, dtype=np.float32), np.zeros(count, dtype=np.float32)
    from sklearn.linear_model import LogisticRegression

    def platt(values: Any, yes: Any) -> tuple[float, float]:
        model = LogisticRegression(C=1e4, max_iter=1000).fit(values.reshape(-1, 1), yes)
        return float(model.coef_[0, 0]), float(model.intercept_[0])

    common: tuple[float, float] | None = None
    fitted = []
    for column in range(count):
        yes = int(truth[:, column].sum())
        if FEWEST <= yes <= len(truth) - FEWEST:
            fitted.append(platt(answers[:, column], truth[:, column]))
            continue
        if common is None:
            both = 0 < int(truth.sum()) < truth.size
            common = platt(answers.ravel(), truth.ravel()) if both else (1.0, 0.0)
        fitted.append(common)
    slope, offset = np.asarray(fitted, dtype=np.float32).T
    return np.ascontiguousarray(slope), np.ascontiguousarray(offset)
