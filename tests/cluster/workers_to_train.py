"""What the tests of ``train`` run on workers."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from llmembed.contract import WorkerContext
from llmembed.errors import UnsupportedError


@dataclass(frozen=True)
class Sums:
    """Each worker brings its rank + 1; all sum up, and the first keeps the sum, step by step.

    ``die_once``: a file that does not exist yet; in its second step, once the first one is kept
    below the file's folder, the last worker makes it and kills itself, so that it happens once.
    """

    steps: int = 2
    die_once: Path | None = None

    def __call__(self, context: WorkerContext) -> None:
        import os

        import torch
        import torch.distributed as dist

        start = 0
        if context.resume_from is not None:
            start = int((context.resume_from / "step.txt").read_text()) + 1
        for step in range(start, self.steps):
            total = torch.tensor([float(context.rank + 1)])
            if context.world_size > 1:
                dist.all_reduce(total)
            last = context.rank == context.world_size - 1
            if step == 1 and last and self.die_once is not None and not self.die_once.exists():
                _wait_for(self.die_once.parent, "checkpoint_manager_snapshot.json")
                self.die_once.touch()
                os.kill(os.getpid(), 9)
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / f"rank-{context.rank}.txt").write_text(str(total.item()))
                (Path(folder) / "step.txt").write_text(str(step))
                metrics = {"total": total.item(), "step": float(step), "start": float(start)}
                context.report(metrics, Path(folder))


def _wait_for(folder: Path, name: str) -> None:
    end = time.monotonic() + 60
    while not list(folder.rglob(name)):
        assert time.monotonic() < end, f"no {name} in {folder}"
        time.sleep(0.1)


@dataclass(frozen=True)
class Refuses:
    def __call__(self, context: WorkerContext) -> None:
        raise UnsupportedError("this head can't be trained on words")
