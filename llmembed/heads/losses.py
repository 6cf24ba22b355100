"""The tasks' losses: as torch's modules for autograd, and with their derivative by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from llmembed.contract import Task
from llmembed.heads.config import HeadConfig


def class_weights(task: Task, truth: Tensor) -> Tensor:
    """(C,): for ``single`` the inverse of a class's share, for ``multi`` what a positive weighs
    against a negative."""
    if task.kind == "multi":
        positive = truth.sum(0)
        return ((len(truth) - positive) / positive.clamp_min(1)).clamp(0.1, 100)
    count = torch.bincount(truth, minlength=len(task.classes)).clamp_min(1)
    return len(truth) / (len(task.classes) * count.float())


def loss_modules(
    tasks: Sequence[Task], truth: Mapping[str, Tensor], config: HeadConfig
) -> list[nn.Module]:
    """Cross-entropy on logits for ``single``, binary cross-entropy on logits for ``multi``; focal
    where the config says so."""
    losses: list[nn.Module] = []
    for task in tasks:
        weights = class_weights(task, truth[task.name]) if config.class_weights else None
        if config.focal:
            losses.append(
                FocalLoss(config.focal, task.kind, weights, smoothing=config.label_smoothing)
            )
        elif task.kind == "multi":
            losses.append(nn.BCEWithLogitsLoss(pos_weight=weights))
        else:
            losses.append(
                nn.CrossEntropyLoss(weight=weights, label_smoothing=config.label_smoothing)
            )
    return losses


class FocalLoss(nn.Module):
    """(1 - p)^γ times the loss of a text, of ``multi`` of a cell, p being what its truth was given
    (Lin et al. 2017). Means are as in torch's losses, so that γ = 0 gives theirs: over texts by the
    weights of their classes, over cells."""

    weights: Tensor | None

    def __init__(
        self, gamma: float, kind: str, weights: Tensor | None, *, smoothing: float = 0.0
    ) -> None:
        super().__init__()
        self.gamma, self.kind, self.smoothing = gamma, kind, smoothing
        self.register_buffer("weights", weights)

    def forward(self, logits: Tensor, truth: Tensor) -> Tensor:
        """``logits`` (B, C); ``truth`` int64 (B,), for ``multi`` float32 (B, C)."""
        if self.kind == "multi":
            each = nn.functional.binary_cross_entropy_with_logits(
                logits, truth, pos_weight=self.weights, reduction="none"
            )
            return (each * focal_factor(missed(logits, truth, self.kind), self.gamma)).mean()
        each = nn.functional.cross_entropy(
            logits, truth, self.weights, label_smoothing=self.smoothing, reduction="none"
        )
        whole = len(truth) if self.weights is None else self.weights[truth].sum()
        return (each * focal_factor(missed(logits, truth, self.kind), self.gamma)).sum() / whole


def missed(logits: Tensor, truth: Tensor, kind: str) -> Tensor:
    """1 - p, p being what the truth was given: (B,), for ``multi`` (B, C)."""
    if kind == "multi":
        share = logits.sigmoid()
        return truth * (1 - share) + (1 - truth) * share
    return 1 - logits.softmax(1).gather(1, truth[:, None])[:, 0]


def focal_factor(missed: Tensor, gamma: float) -> Tensor:
    """``missed``^γ; where nothing is missed the slope of a root would have no end."""
    return missed.clamp_min(1e-8) ** gamma


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What the loss of one task compares with, and its derivative, for G heads.

    ``single``: cross-entropy with class weights and label smoothing as in torch's
    ``CrossEntropyLoss``, as ``-sum(wanted * log p) / sum(weight)``; ``wanted`` (T, N, C),
    ``whole`` its sum over classes (T, N, 1), ``weight`` (T, N). ``multi``: ``BCEWithLogitsLoss``;
    ``wanted`` (T, N, C) holds y * w, ``whole`` (T, N, C) 1 + (w - 1) * y, w being the weight of a
    positive. ``of`` (G,) says which of the T settings each head has.
    """

    kind: str
    wanted: Tensor
    whole: Tensor
    weight: Tensor
    of: Tensor

    @classmethod
    def make(cls, task: Task, truth: Tensor, configs: Sequence[HeadConfig]) -> Targets:
        settings = [(c.class_weights, c.label_smoothing) for c in configs]
        kinds = sorted(set(settings))
        made = [_targets(task, truth, *each) for each in kinds]
        of = torch.tensor([kinds.index(s) for s in settings], device=truth.device)
        wanted, whole, weight = (torch.stack(part) for part in zip(*made, strict=True))
        return cls(kind=task.kind, wanted=wanted, whole=whole, weight=weight, of=of)

    def keep(self, rows: Tensor) -> Targets:
        """Those of the heads at ``rows`` (G',) alone."""
        return replace(self, of=self.of[rows])

    def loss(self, logits: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean losses (G,) and their derivative by ``logits`` (G, B, C); ``rows`` int64 (G, B)."""
        of = self.of.unsqueeze(1)
        wanted, whole = self.wanted[of, rows], self.whole[of, rows]
        if self.kind == "multi":
            count = logits.shape[1] * logits.shape[2]
            softplus = nn.functional.softplus(logits)
            losses = (whole * softplus - wanted * logits).sum((1, 2)) / count
            return losses, (whole * logits.sigmoid() - wanted) / count
        norm = self.weight[of, rows].sum(1)
        logs = torch.log_softmax(logits, 2)
        losses = -(wanted * logs).sum((1, 2)) / norm
        return losses, (logs.exp_() * whole - wanted) / norm.view(-1, 1, 1)


def _targets(
    task: Task, truth: Tensor, weighted: bool, smoothing: float
) -> tuple[Tensor, Tensor, Tensor]:
    """``wanted``, ``whole`` and ``weight`` of one setting; see ``Targets``."""
    weights = class_weights(task, truth)
    if not weighted:
        weights = torch.ones_like(weights)
    if task.kind == "multi":
        return truth * weights, 1 + (weights - 1) * truth, truth.new_ones(len(truth))
    classes = len(task.classes)
    own = weights[truth]
    wanted = (smoothing / classes) * weights.expand(len(truth), classes).clone()
    wanted[torch.arange(len(truth), device=truth.device), truth] += (1 - smoothing) * own
    return wanted, wanted.sum(1, keepdim=True), own
