"""A fine-tuned encoder at work: texts -> logits of each task, here or on actors."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from llmembed.contract import Task, Usage
from llmembed.errors import ModelError
from llmembed.finetuning.rows import encode_texts
from llmembed.metering import Meter

if TYPE_CHECKING:
    from llmembed.backbones.spec import Dtype

SHIP_AT_MOST = 512 * 2**20
"""Bytes of a model that are sent to workers which can't read its folder."""
BATCH_TOKENS = {"cpu": 4096, "cuda": 65536}
CERTAIN = 20.0
"""The logit of O for a word beyond the token limit."""

Floats = npt.NDArray[np.float32]
Logits = dict[str, list[Floats]]
"""Task -> for each text float32 (C,), for words (words, C)."""


class EncoderAnswers:
    """The model in ``folder`` (see ``heads.write``) on one device.

    ``dtype`` bfloat16 is followed where the device computes in it, else answers come in float32,
    which differ from the former by rounding."""

    def __init__(self, folder: Path, *, max_tokens: int, dtype: Dtype = "float32") -> None:
        import torch

        from llmembed.backbones import best_dtype
        from llmembed.backbones.backbone import device_of
        from llmembed.backbones.batching import Work
        from llmembed.finetuning import heads
        from llmembed.finetuning.worker import load_tokeniser

        self.device = device_of("auto")
        used = dtype if best_dtype(str(self.device)) == "bfloat16" else "float32"
        self.model = heads.read(folder, self.device, getattr(torch, used))
        self.tokeniser = load_tokeniser(str(folder / "encoder"))
        self.max_tokens = max_tokens
        self.work = Work()
        self._budget = BATCH_TOKENS[self.device.type]

    def logits(self, texts: Sequence[str]) -> tuple[Logits, list[int]]:
        """Logits, and how many tokens each text has."""
        import torch

        from llmembed.backbones.batching import run_batches
        from llmembed.finetuning.rows import Rows, pad_of

        tasks: tuple[Task, ...] = self.model.tasks
        tagged = any(task.kind == "tokens" for task in tasks)
        ids, starts = encode_texts(self.tokeniser, texts, self.max_tokens, words=tagged)
        rows = Rows(ids=ids, labels={}, pad=pad_of(self.tokeniser))
        found: dict[str, dict[int, Floats]] = {task.name: {} for task in tasks}

        def forward(batch: npt.NDArray[np.int64], length: int) -> int:
            inputs = {k: v.to(self.device) for k, v in rows.batch(batch.tolist()).items()}
            for task, logits in zip(tasks, self.model.logits(**inputs), strict=True):
                values = logits.cpu().numpy()
                for place, row in enumerate(batch.tolist()):
                    own = values[place]
                    if task.kind == "tokens":
                        own = _of_words(task, own, starts[row])
                    found[task.name][row] = own
            return length * len(batch)

        with torch.inference_mode():
            self._budget = run_batches(rows.lengths, forward, budget=self._budget, work=self.work)
        return (
            {name: [of[row] for row in range(len(texts))] for name, of in found.items()},
            [len(row) for row in ids],
        )


def _of_words(task: Task, logits: Floats, first: npt.NDArray[np.int64]) -> Floats:
    """(T, C) -> (words, C); a word that was cut off is outside every slot."""
    outside = np.zeros(len(task.classes), dtype=np.float32)
    if "O" in task.classes:
        outside[task.classes.index("O")] = CERTAIN
    own = logits[np.maximum(first, 0)]
    return np.where((first >= 0)[:, None], own, outside).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Answering:
    """Picklable; makes what answers tables of ``row`` and ``text`` in a worker. ``content``: the
    folder's files, where workers may not see the folder itself."""

    folder: str
    max_tokens: int
    dtype: Dtype
    content: Mapping[str, bytes] | None = None

    @classmethod
    def of(cls, folder: Path, *, max_tokens: int, dtype: Dtype, ship: bool) -> Answering:
        """``ship``: send the files along, if they are not too large for that."""
        content = None
        if ship:
            files = [path for path in folder.rglob("*") if path.is_file()]
            if sum(path.stat().st_size for path in files) <= SHIP_AT_MOST:
                content = {str(path.relative_to(folder)): path.read_bytes() for path in files}
        return cls(folder=str(folder), max_tokens=max_tokens, dtype=dtype, content=content)

    def __call__(self) -> Callable[[pa.Table], pa.Table]:
        if self.content is None:
            if not Path(self.folder).is_dir():
                raise ModelError(
                    f"there is no folder {self.folder} on this machine, where the fine-tuned model "
                    "was left: runtime.files must be a folder that all machines see"
                )
            model = self._load(Path(self.folder))
        else:
            with tempfile.TemporaryDirectory() as folder:
                for name, content in self.content.items():
                    path = Path(folder, name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                model = self._load(Path(folder))
        return lambda table: answer_table(model, table)

    def _load(self, folder: Path) -> EncoderAnswers:
        return EncoderAnswers(folder, max_tokens=self.max_tokens, dtype=self.dtype)


def answer_table(model: EncoderAnswers, table: pa.Table) -> pa.Table:
    """``row``, ``tokens``, ``usage`` (JSON, the first row bears all) and one flat list of logits a
    task."""
    with Meter() as meter:
        logits, tokens = model.logits(table.column("text").to_pylist())
    usage = json.dumps((meter.usage + Usage(tokens=sum(tokens))).to_json())
    columns = {
        f"logits/{name}": pa.array([row.reshape(-1) for row in rows], pa.list_(pa.float32()))
        for name, rows in logits.items()
    }
    shares = [usage if place == 0 else "" for place in range(table.num_rows)]
    return pa.table({"row": table.column("row"), "tokens": tokens, "usage": shares, **columns})
