"""What the training loop asks of a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor


class Trainable(Protocol):
    """What ``Finetuner`` asks of a model. ``losses``: the names of its losses; ``measures``: what
    right, answered and true labels of each make (see ``tallies``); ``chosen_by``: whether the best
    is told by the mean of these, ``score``, or by the ``loss``; ``weights``: of the losses;
    ``merges``: whether the whole model is written, else what was trained alone."""

    losses: tuple[str, ...]
    measures: Mapping[str, str]
    chosen_by: str
    weights: Mapping[str, float]

    @property
    def merges(self) -> bool: ...

    def label_counts(self, batch: Mapping[str, Tensor]) -> Tensor: ...

    def tallies(self, logits: Any, batch: Mapping[str, Tensor]) -> Tensor: ...

    def write(self, folder: Path, state: Mapping[str, Tensor], tokeniser: Any) -> None: ...
