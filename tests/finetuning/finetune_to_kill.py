"""Work that kills its last worker once, for the tests of resuming."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llmembed.contract import WorkerContext
from llmembed.finetuning.worker import DecoderWork, EncoderWork


def dying(context: WorkerContext, mark: Path) -> WorkerContext:
    """``mark``: a file that does not exist yet. Once a checkpoint is kept below its folder, the
    last worker makes it and kills itself after its next report."""

    def report(metrics: Mapping[str, float], folder: Path | None) -> None:
        context.report(metrics, folder)
        last = context.rank == context.world_size - 1
        if folder is not None and last and not mark.exists():
            end = time.monotonic() + 150
            while not list(mark.parent.rglob("checkpoint_manager_snapshot.json")):
                assert time.monotonic() < end, "no checkpoint was kept"
                time.sleep(0.1)
            mark.touch()
            os.kill(os.getpid(), 9)

    return replace(context, report=report)


@dataclass(frozen=True, kw_only=True)
class DiesOnce(EncoderWork):
    mark: Path

    def __call__(self, context: WorkerContext) -> None:
        super().__call__(dying(context, self.mark))


@dataclass(frozen=True, kw_only=True)
class DecoderDiesOnce(DecoderWork):
    mark: Path

    def __call__(self, context: WorkerContext) -> None:
        super().__call__(dying(context, self.mark))


@dataclass(frozen=True, kw_only=True)
class Hangs(EncoderWork):
    """Once a checkpoint is kept below the folder of ``mark``, the first worker makes it, and all
    wait to be killed."""

    mark: Path

    def __call__(self, context: WorkerContext) -> None:
        def report(metrics: Mapping[str, float], folder: Path | None) -> None:
            context.report(metrics, folder)
            if folder is None:
                return
            while not list(self.mark.parent.rglob("checkpoint_manager_snapshot.json")):
                time.sleep(0.1)
            self.mark.touch()
            time.sleep(3600)

        super().__call__(replace(context, report=report))


@dataclass(frozen=True, kw_only=True)
class StopsAfter(EncoderWork):
    """Gives up for good once ``steps`` are reported."""

    steps: int

    def __call__(self, context: WorkerContext) -> None:
        def report(metrics: Mapping[str, float], folder: Path | None) -> None:
            context.report(metrics, folder)
            if metrics["step"] >= self.steps and folder is not None:
                raise RuntimeError("that was the eighth step")

        super().__call__(replace(context, report=report))
