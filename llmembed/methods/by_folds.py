"""What methods that are fitted by folds share: fitting on one part and choosing on another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmembed.contract import Examples, Reporter, Runtime, Task
from llmembed.folds import CrossFits, Folds


class ByFolds:
    """Base of methods with ``cross_fit``. ``fit`` is that with one fold and no refit."""

    def fit(
        self,
        tasks: Sequence[Task],
        train: Examples,
        valid: Examples,
        runtime: Runtime,
        reporter: Reporter,
    ) -> Any:
        """As ``contract.Method.fit``."""
        assert isinstance(self, CrossFits), "a method by folds has cross_fit"
        folds = Folds.of(train, valid)
        [found] = self.cross_fit(tasks, folds, runtime, reporter).classifiers
        return found
