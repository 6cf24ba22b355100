"""One temperature per task, fitted on validation (Guo et al., 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def fit_temperature(logits: Tensor, truth: Tensor, kind: str) -> float:
    """The T > 0 for which logits / T have the least cross-entropy to ``truth``.

    ``logits``: (N, C); ``truth``: int64 (N,) for ``single``, float (N, C) for ``multi``. Found
    by golden section over log T (the loss is unimodal in it). With every answer right the loss
    falls without end towards T = 0, so T is kept between 1/4 and 20.
    """
    logits = logits.double()

    def loss(log_temperature: float) -> float:
        scaled = logits / torch.tensor(log_temperature, dtype=torch.float64).exp()
        if kind == "multi":
            return nn.functional.binary_cross_entropy_with_logits(scaled, truth.double()).item()
        return nn.functional.cross_entropy(scaled, truth).item()

    low, high = -1.3862943611198906, 2.995732273553991
    golden = 0.6180339887498949
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-4:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = loss(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = loss(right)
    return float(torch.tensor((low + high) / 2).exp())
