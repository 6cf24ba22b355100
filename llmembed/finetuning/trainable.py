"""What the training loop asks of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch.distributed as dist
from torch import Tensor

Kept = dict[str, tuple[Any, ...]]
"""By loss, arrays of a batch that a metric needs which is not told by tallies."""


def of_all_workers(kept: list[Kept], workers: int) -> list[Kept]:
    """What every worker kept; each then comes to the same figures."""
    if workers == 1:
        return kept
    found: list[Any] = [None] * workers
    dist.all_gather_object(found, kept)
    return [batch for own in found for batch in own]


class Trainable(Protocol):
    """What ``Finetuner`` asks of a model. ``losses``: the names of its losses; ``measures``: what
    right, answered and true labels of each make (see ``tallies``); ``chosen_by``: whether the best
    is told by the mean of these, ``score``, or by the ``loss``; ``weights``: of the losses;
    ``judged``: the losses whose score is not told by tallies but by ``values``; ``merges``: whether
    the whole model is written, else what was trained alone."""

    losses: tuple[str, ...]
    measures: Mapping[str, str]
    chosen_by: str
    weights: Mapping[str, float]

    @property
    def merges(self) -> bool: ...

    @property
    def judged(self) -> tuple[str, ...]: ...

    def label_counts(self, batch: Mapping[str, Tensor]) -> Tensor: ...

    def tallies(self, logits: Any, batch: Mapping[str, Tensor]) -> Tensor: ...

    def kept(self, logits: Any, batch: Mapping[str, Tensor]) -> Kept:
        """Of one batch of validation; empty where tallies suffice."""
        ...

    def values(self, kept: Sequence[Kept]) -> dict[str, float]:
        """What all batches together are worth, by loss; of those not told by tallies."""
        ...

    def write(self, folder: Path, state: Mapping[str, Tensor], tokeniser: Any) -> None: ...
