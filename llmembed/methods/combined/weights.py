"""How much each member's word counts, from what they answered to texts that none of them had seen.

``greedy``: selection with replacement (Caruana et al. 2004): starting from the best member, the one
is added again and again whose addition answers best; a member's weight is how often it was.
``stacked``: a logistic regression over the members' log-probabilities, one weight for each member
and a bias for each class, drawn towards their plain mean. ``mean``: all alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from llmembed.contract import Task
from llmembed.heads.calibration import fit_temperature
from llmembed.metrics.deciding import judged, plainly_decided

Floats = npt.NDArray[np.float32]
How = Literal["greedy", "stacked", "mean"]
ROUNDS = 30
"""Additions of greedy selection."""
LEAST = 1e-6
"""A probability below counts as this one: no member's no is final."""
PENALTY = 1e-2
"""Of the distance to the plain mean, for a mean loss of nats per text."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Of M members for one task. ``of_logs``: whether log-probabilities are added up (and
    ``bias`` (C,) to them) or probabilities; the logits of either are divided by
    ``temperature``."""

    of_members: Floats
    bias: Floats
    of_logs: bool
    temperature: float = 1.0

    def scores(self, members: Floats, kind: str) -> Floats:
        """Members' probabilities float32 (M, N, C) -> those of all together (N, C)."""
        return _probabilities(self.logits(members, kind) / self.temperature, kind)

    def logits(self, members: Floats, kind: str) -> npt.NDArray[np.float64]:
        """(M, N, C) -> (N, C), before the temperature."""
        weights = self.of_members.astype(np.float64)
        if not self.of_logs:
            return _logits(np.tensordot(weights, members.astype(np.float64), 1), kind)
        return np.tensordot(weights, _logits(members, kind), 1) + self.bias

    def to_json(self) -> dict[str, Any]:
        return {
            "of_members": [float(each) for each in self.of_members],
            "bias": [float(each) for each in self.bias],
            "of_logs": self.of_logs,
            "temperature": self.temperature,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Weights:
        """Raises ``KeyError``, ``TypeError``, ``ValueError``."""
        found = cls(
            of_members=np.asarray(data["of_members"], dtype=np.float32),
            bias=np.asarray(data["bias"], dtype=np.float32),
            of_logs=bool(data["of_logs"]),
            temperature=float(data["temperature"]),
        )
        numbers = np.concatenate([found.of_members.ravel(), found.bias.ravel()])
        if not np.isfinite(numbers).all() or not 0 < found.temperature < np.inf:
            raise ValueError("weights must be finite, the temperature above 0")
        return found


def weigh(task: Task, members: Floats, truth: npt.NDArray[Any], how: How) -> Weights:
    """The weights by which ``members`` (M, N, C) answer best, and a temperature."""
    count, classes = len(members), len(task.classes)
    even = np.full(count, 1 / count, dtype=np.float32)
    none = np.zeros(classes, dtype=np.float32)
    if how == "stacked":
        of_members, bias = _stacked(task, members, truth)
        found = Weights(of_members=of_members, bias=bias, of_logs=True)
    else:
        chosen = even if how == "mean" else _greedy(task, members, truth)
        found = Weights(of_members=chosen, bias=none, of_logs=False)
    logits = found.logits(members, task.kind)
    temperature = fit_temperature(logits, truth, task.kind)
    return Weights(
        of_members=found.of_members, bias=found.bias, of_logs=found.of_logs, temperature=temperature
    )


def left_out_scores(
    task: Task, members: Floats, truth: npt.NDArray[Any], how: How, parts: Sequence[Any]
) -> Floats:
    """(N, C) of weights that were chosen without the texts that they answer: each of ``parts``,
    rows, by the others. What the weights gain by being chosen is so not taken for quality."""
    found = np.zeros(members.shape[1:], dtype=np.float32)
    for part in parts:
        rest = np.setdiff1d(np.arange(len(truth)), part)
        weights = weigh(task, members[:, rest], truth[rest], how)
        found[part] = weights.scores(members[:, part], task.kind)
    return found


def quality(task: Task, scores: npt.NDArray[Any], truth: npt.NDArray[Any]) -> tuple[float, float]:
    """What ``scores`` (N, C) are worth under the task's metric; of equals, the lesser log loss."""
    return judged(task, truth, scores.astype(np.float32)), -log_loss(task, scores, truth)


def log_loss(task: Task, scores: npt.NDArray[Any], truth: npt.NDArray[Any]) -> float:
    """Mean negative log-probability of the truth, in nats."""
    clipped = np.clip(scores, LEAST, 1 - LEAST)
    if task.kind == "multi":
        return -float(np.where(truth, np.log(clipped), np.log1p(-clipped)).mean())
    return -float(np.log(np.take_along_axis(clipped, truth[:, None], axis=1)).mean())


def _greedy(task: Task, members: Floats, truth: npt.NDArray[Any]) -> Floats:
    def goal(scores: npt.NDArray[np.float64]) -> tuple[float, float]:
        """Accuracy, and of other metrics, which may choose thresholds each time, the log loss."""
        loss = -log_loss(task, scores, truth)
        if task.kind == "multi" or not plainly_decided(task):
            return loss, 0.0
        return float((scores.argmax(axis=1) == truth).mean()), loss

    counts = np.zeros(len(members))
    total = np.zeros(members.shape[1:], dtype=np.float64)
    best: tuple[tuple[float, float], npt.NDArray[np.float64]] | None = None
    for number in range(1, ROUNDS + 1):
        tried = [goal((total + member) / number) for member in members]
        added = max(range(len(members)), key=lambda each: tried[each])
        counts[added] += 1
        total += members[added]
        if best is None or tried[added] > best[0]:
            best = tried[added], counts.copy()
    assert best is not None, "at least one round"
    return np.asarray(best[1] / best[1].sum(), dtype=np.float32)


def _stacked(task: Task, members: Floats, truth: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    import torch

    logs = torch.from_numpy(_logits(members, task.kind))
    right = torch.from_numpy(truth.astype(np.float64) if task.kind == "multi" else truth)
    even = torch.full((len(members),), 1 / len(members), dtype=torch.float64)
    weights = even.clone().requires_grad_()
    bias = torch.zeros(members.shape[2], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([weights, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        logits = torch.tensordot(weights, logs, 1) + bias
        if task.kind == "multi":
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, right)
        else:
            loss = torch.nn.functional.cross_entropy(logits, right)
        loss = loss + PENALTY * (((weights - even) ** 2).sum() + (bias**2).mean())
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with torch.enable_grad():
        solver.step(closure)  # type: ignore[no-untyped-call]
    return (
        weights.detach().numpy().astype(np.float32),
        bias.detach().numpy().astype(np.float32),
    )


def _logits(probabilities: npt.NDArray[Any], kind: str) -> npt.NDArray[np.float64]:
    clipped = np.clip(probabilities.astype(np.float64), LEAST, 1 - LEAST)
    logs = np.log(clipped)
    return logs - np.log1p(-clipped) if kind == "multi" else logs


def _probabilities(logits: npt.NDArray[np.float64], kind: str) -> Floats:
    if kind == "multi":
        return np.asarray(1 / (1 + np.exp(-np.clip(logits, -80, 80))), dtype=np.float32)
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True), dtype=np.float32)
