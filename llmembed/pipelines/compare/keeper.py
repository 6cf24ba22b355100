"""The classifiers that may still win, kept on disk until the winner is known."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmembed.embeddings.folder import Folder
from llmembed.errors import StoreError
from llmembed.pipelines.sidecars import write_thresholds, write_validation

if TYPE_CHECKING:
    from llmembed.contract import Classifier
    from llmembed.evaluation import Result
    from llmembed.tracking import Run


@dataclass(frozen=True, kw_only=True)
class Kept:
    """One fitted classifier in ``folder``, with its result and its run."""

    result: Result
    folder: Path
    run: Run


@dataclass
class Keeper:
    """Of each method the seed best on validation; of all methods only the best so far."""

    _kept: dict[str, Kept] = field(default_factory=dict)
    _folder: Path | None = None
    _runs: list[str] = field(default_factory=list)

    def __enter__(self) -> Keeper:
        self._folder = Path(tempfile.mkdtemp(prefix="llmembed-classifiers-"))
        return self

    def __exit__(self, error: object, *_: object) -> None:
        """Where all went well nobody goes on from the trainings that led here."""
        assert self._folder is not None
        shutil.rmtree(self._folder, ignore_errors=True)
        if error is None:
            for run in self._runs:
                try:
                    Folder(run).delete()
                except StoreError as error:
                    warnings.warn(f"a training's files stay behind: {error}", stacklevel=2)

    def offer(self, result: Result, classifier: Classifier, run: Run) -> None:
        """Keep ``classifier`` if no other seed of its method did better on validation."""
        value = result.valid_value()
        if value is None or result.status != "ok":
            return
        self._runs += getattr(classifier, "kept_runs", ())
        earlier = self._kept.get(result.label)
        if earlier is not None:
            best = earlier.result.valid_value()
            if best is not None and best >= value:
                return
            shutil.rmtree(earlier.folder)
        assert self._folder is not None
        folder = Path(tempfile.mkdtemp(dir=self._folder)) / "classifier"
        classifier.save(folder)
        write_thresholds(folder, result)
        write_validation(folder, result)
        self._kept[result.label] = Kept(result=result, folder=folder, run=run)

    def keep_only(self, winner: Any) -> None:
        """Forget every method but the one leading; None keeps all."""
        if winner is None:
            return
        for label in [label for label in self._kept if label != winner.label]:
            shutil.rmtree(self._kept.pop(label).folder)

    def of(self, label: str) -> Kept:
        return self._kept[label]

    def copy(self, label: str, target: Path) -> None:
        """Copy the kept classifier of ``label`` to ``target``."""
        shutil.copytree(self._kept[label].folder, target, dirs_exist_ok=True)
