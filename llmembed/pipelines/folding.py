"""Which texts are left out in turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llmembed.errors import ConfigError
from llmembed.folds import Folds, joined

if TYPE_CHECKING:
    from llmembed.contract import Examples, Task
    from llmembed.experiment import SelectionSettings
    from llmembed.texts import Corpus

FEW = 5000
"""Rows of train and validation up to which ``auto`` folds: one validation part of a tenth says
little of them, and fits are cheap."""
SEVERAL = 5


def make_folds(corpus: Corpus, settings: SelectionSettings, seed: int) -> Folds | None:
    """Train and validation of ``corpus`` in parts; None where its own validation part is used as
    it is and nothing fitted on it.

    Equal texts are in one part, and a class has its share of every part, as far as it goes. Raises
    ``ConfigError`` for more parts than there are texts.
    """
    examples = joined(corpus.train, corpus.valid)
    count = len(examples)
    folds = settings.folds
    if folds == "auto":
        # A validation part that was chosen, by time or by source, is not mixed with train.
        few = 2 * SEVERAL <= count <= FEW and not corpus.has_own_valid
        folds = SEVERAL if few and len(set(examples.texts)) >= SEVERAL else 1
    elif folds > len(set(examples.texts)):
        raise ConfigError(
            f"selection.folds is {folds}, but there are {len(set(examples.texts))} distinct texts"
        )
    if folds == 1:
        held = np.arange(len(corpus.train), count)
        return Folds(examples=examples, held=(held,)) if settings.refit else None
    return Folds(
        examples=examples,
        held=_parts(corpus.tasks, examples, folds, seed),
    )


def _parts(
    tasks: Sequence[Task], examples: Examples, folds: int, seed: int
) -> tuple[npt.NDArray[np.int64], ...]:
    """Texts in an order drawn by ``seed``, those of a class together, dealt out like cards."""
    _, first, group = np.unique(
        np.asarray(examples.texts, dtype=object), return_index=True, return_inverse=True
    )
    strata = _strata(tasks[0], examples)[first]
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(strata[order], kind="stable")]
    dealt = np.empty(len(first), dtype=np.int64)
    dealt[order] = np.arange(len(first)) % folds
    return tuple(np.flatnonzero(dealt[group] == number) for number in range(folds))


def _strata(task: Task, examples: Examples) -> npt.NDArray[np.int64]:
    """What is spread evenly, of each text: its class, or its set of classes."""
    if task.kind == "tokens":
        return np.zeros(len(examples), dtype=np.int64)
    labels = examples.labels[task.name]
    if labels.ndim == 1:
        return np.asarray(labels, dtype=np.int64)
    return np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
