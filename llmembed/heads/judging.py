"""What validation says of a fit: quality, collapse, temperatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from llmembed.contract import Task
from llmembed.errors import CollapseError
from llmembed.heads.calibration import fit_temperature

FEWEST_TO_JUDGE = 20
"""Validation texts below which one answer to all of them is not taken for a collapse."""


def quality(
    tasks: Sequence[Task], logits: Sequence[Tensor], labels: Mapping[str, Tensor]
) -> dict[str, float]:
    """Accuracy by task (``multi``: F1 over all cells), their mean, and the summed loss."""
    metrics: dict[str, float] = {}
    loss = 0.0
    for task, answers in zip(tasks, logits, strict=True):
        truth = labels[task.name]
        if task.kind == "multi":
            said = answers > 0
            both = (said & truth.bool()).sum().item()
            share = 2 * both / max(1, said.sum().item() + truth.sum().item())
            loss += nn.functional.binary_cross_entropy_with_logits(answers, truth).item()
        else:
            share = (answers.argmax(1) == truth).float().mean().item()
            loss += nn.functional.cross_entropy(answers, truth).item()
        metrics[f"valid_accuracy/{task.name}"] = share
    metrics["valid_accuracy"] = sum(metrics.values()) / len(tasks)
    metrics["valid_loss"] = loss
    return metrics


def raise_on_collapse(
    tasks: Sequence[Task], logits: Sequence[Tensor], labels: Mapping[str, Tensor]
) -> None:
    """One answer to all texts is a collapse where it can't be chance or caution: not among a
    handful of texts, and not where no label of ``multi`` passes one half."""
    for task, answers in zip(tasks, logits, strict=True):
        truth = labels[task.name]
        said = (answers > 0) if task.kind == "multi" else answers.argmax(1)
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
