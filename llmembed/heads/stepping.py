"""What the one training loop asks of that which takes a step, and what both share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmembed.contract import Task

Labels = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """The tasks and their labels on the device, of N training and N' validation rows: int64 (N,)
    for ``single``, float32 (N, C) for ``multi``."""

    tasks: tuple[Task, ...]
    truth: Mapping[str, Tensor]
    valid_truth: Mapping[str, Tensor]
    count: int
    device: torch.device

    @classmethod
    def make(
        cls, tasks: Sequence[Task], labels: Labels, valid_labels: Labels, device: torch.device
    ) -> Lesson:
        return cls(
            tasks=tuple(tasks),
            truth=_truth(labels, tasks, device),
            valid_truth=_truth(valid_labels, tasks, device),
            count=len(labels[tasks[0].name]),
            device=device,
        )


def _truth(labels: Labels, tasks: Sequence[Task], device: torch.device) -> dict[str, Tensor]:
    kinds = {"single": np.int64, "multi": np.float32}
    return {
        task.name: torch.from_numpy(labels[task.name].astype(kinds[task.kind])).to(device)
        for task in tasks
    }


class Stepper(Protocol):
    """Fits that are trained in step with each other, G of them to begin with. ``active``: the
    number of the fit in each row of what is trained; fits that are done fall out."""

    active: list[int]

    def step(self, rows: Tensor, share: float) -> Tensor:
        """One step on the batch ``rows`` (G', B), at ``share`` of each learning rate; the losses
        (G',) before it, not yet waited for."""
        ...

    def logits(self, row: int) -> list[Tensor]:
        """Of the validation rows as the weights are: float32 (N', C) for each task."""
        ...

    def save(self, row: int) -> None:
        """The weights of this row are its fit's choice so far."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
        ...

    def chosen(self, number: int) -> list[Tensor]:
        """Put the fit's choice into its module; ``logits`` under it."""
        ...
