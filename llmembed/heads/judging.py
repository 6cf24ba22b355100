"""What validation says of a fit: quality, collapse, temperatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from llmembed.contract import Task
from llmembed.errors import CollapseError
from llmembed.heads.calibration import fit_temperature
from llmembed.metrics import deciding

FEWEST_TO_JUDGE = 20
"""Validation texts below which one answer to all of them is not taken for a collapse."""


def quality(
    tasks: Sequence[Task], logits: Sequence[Tensor], labels: Mapping[str, Tensor]
) -> dict[str, float]:
    """What the fit is worth by task, under each task's metric (accuracy, for ``multi`` F1 over all
    cells, unless it names another), their mean, and the summed loss. Higher is better but for the
    loss; the names say ``valid_accuracy`` whatever the metric is."""
    metrics: dict[str, float] = {}
    loss = 0.0
    for task, answers in zip(tasks, logits, strict=True):
        truth = labels[task.name]
        if task.kind == "multi":
            loss += nn.functional.binary_cross_entropy_with_logits(answers, truth).item()
        else:
            loss += nn.functional.cross_entropy(answers, truth).item()
        plain = deciding.plainly_decided(task)
        share = _share(task, answers, truth) if plain else _judged(task, answers, truth)
        metrics[f"valid_accuracy/{task.name}"] = share
    metrics["valid_accuracy"] = sum(metrics.values()) / len(tasks)
    metrics["valid_loss"] = loss
    return metrics


def _share(task: Task, answers: Tensor, truth: Tensor) -> float:
    """The kinds' own metrics where the answers are, without a copy of the scores."""
    if task.kind == "multi":
        said = answers > 0
        both = (said & truth.bool()).sum().item()
        return 2 * both / max(1, said.sum().item() + truth.sum().item())
    return (answers.argmax(1) == truth).float().mean().item()


def _judged(task: Task, answers: Tensor, truth: Tensor) -> float:
    return deciding.judged(task, truth.cpu().numpy(), _scores(task, answers))


def _scores(task: Task, answers: Tensor) -> npt.NDArray[np.float32]:
    """Probabilities (N, C) of logits that are not calibrated yet."""
    shares = answers.sigmoid() if task.kind == "multi" else answers.softmax(1)
    scores: npt.NDArray[np.float32] = shares.float().cpu().numpy()
    return scores


def _said(task: Task, answers: Tensor, truth: Tensor) -> Tensor:
    """Labels as they will be decided."""
    if deciding.plainly_decided(task):
        return (answers > 0) if task.kind == "multi" else answers.argmax(1)
    scores = _scores(task, answers)
    chosen = deciding.with_thresholds(task, truth.cpu().numpy(), scores)
    return torch.from_numpy(deciding.decided(chosen, scores))


def raise_on_collapse(
    tasks: Sequence[Task], logits: Sequence[Tensor], labels: Mapping[str, Tensor]
) -> None:
    """One answer to all texts is a collapse where it can't be chance or caution: not among a
    handful of texts, not where no label of ``multi`` passes its threshold, and not of a task that
    can't (see ``deciding.can_collapse``)."""
    for task, answers in zip(tasks, logits, strict=True):
        truth = labels[task.name]
        if not deciding.can_collapse(task):
            continue
        said = _said(task, answers, truth)
        if len(truth) < FEWEST_TO_JUDGE or (task.kind == "multi" and not bool(said.any())):
            continue
        if bool((said == said[:1]).all()) and not bool((truth == truth[:1]).all()):
            answer = (
                "the same classes"
                if task.kind == "multi"
                else repr(task.classes[int(said[0].item())])
            )
            raise CollapseError(
                f"the fit answers {answer} to every validation text of the task {task.name!r}: "
                "try standardised inputs, another learning rate or class weights"
            )


def temperatures(
    tasks: Sequence[Task], logits: Sequence[Tensor], labels: Mapping[str, Tensor]
) -> tuple[float, ...]:
    """One for each task, see ``calibration.fit_temperature``."""
    return tuple(
        fit_temperature(answers.cpu().numpy(), labels[task.name].cpu().numpy(), task.kind)
        for task, answers in zip(tasks, logits, strict=True)
    )
