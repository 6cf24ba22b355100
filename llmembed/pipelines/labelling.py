"""The stage that labels texts on actors, and the parts it leaves.

A part is one chunk of one input file. It is complete or absent (written aside, then renamed), and
its name says which chunk it is, so a run that was killed goes on with the chunks that have no part.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmembed.contract import Classifier, Prediction, Reader, Task

UNKNOWN = "unknown"
COLUMNS = ("file", "index", "text")
"""What a labelled row is known by; ``index`` is its number in its file, from 0."""
SHIP_AT_MOST = 256 * 2**20
"""Bytes of a classifier's folder that travel to the actors; a larger one must lie on a path that
every node sees."""


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """A reader whose tables become rows: one row a chunk, so that a chunk is never split or
    merged on its way. Chunks whose part exists are skipped."""

    number: int
    reader: Reader
    done: frozenset[str]

    def __call__(self) -> Iterator[pa.Table]:
        for index, table in enumerate(self.reader()):
            part = f"part-{self.number:05d}-{index:06d}"
            if part not in self.done and table.num_rows:
                columns = {"part": [part]}
                for name in COLUMNS:
                    values = table[name].combine_chunks()
                    ends = pa.array([0, len(values)], pa.int32())
                    columns[name] = pa.ListArray.from_arrays(ends, values)
                yield pa.table(columns)


@dataclass(frozen=True, kw_only=True)
class MakeLabeller:
    """Picklable; makes the labeller inside a worker. ``content``: file name -> bytes of the
    classifier's folder, or None where ``folder`` itself can be read by every worker."""

    folder: str
    content: Mapping[str, bytes] | None
    parts: str
    scores: bool
    thresholds: Mapping[str, float]

    @classmethod
    def of(
        cls, folder: Path, parts: Path, scores: bool, thresholds: Mapping[str, float]
    ) -> MakeLabeller:
        files = [path for path in folder.rglob("*") if path.is_file()]
        small = sum(path.stat().st_size for path in files) <= SHIP_AT_MOST
        return cls(
            folder=str(folder.resolve()),
            content={str(p.relative_to(folder)): p.read_bytes() for p in files} if small else None,
            parts=str(parts.resolve()),
            scores=scores,
            thresholds=thresholds,
        )

    def __call__(self) -> Labeller:
        from llmembed.methods import load

        if self.content is None:
            return Labeller(classifier=load(self.folder), settings=self)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self.content.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return Labeller(classifier=load(folder), settings=self)


@dataclass(frozen=True, kw_only=True)
class Labeller:
    """Labels chunks, writes their parts, returns one small row a part."""

    classifier: Classifier
    settings: MakeLabeller

    def __call__(self, chunks: pa.Table) -> pa.Table:
        from llmembed.metering import Meter

        done = []
        for chunk in chunks.to_pylist():
            with Meter() as meter:
                predictions = self.classifier.predict(chunk["text"])
            columns = {name: chunk[name] for name in COLUMNS}
            for task in self.classifier.tasks:
                columns |= answers(
                    task,
                    predictions[task.name],
                    alone=len(self.classifier.tasks) == 1,
                    scores=self.settings.scores,
                    threshold=self.settings.thresholds.get(task.name),
                )
            write_part(Path(self.settings.parts) / f"{chunk['part']}.parquet", pa.table(columns))
            usage = json.dumps(meter.usage.to_json())
            done.append({"part": chunk["part"], "rows": len(chunk["text"]), "usage": usage})
        return pa.Table.from_pylist(done)


def answers(
    task: Task, prediction: Prediction, *, alone: bool, scores: bool, threshold: float | None
) -> dict[str, Any]:
    """The output columns of one task: ``label`` and ``score``, prefixed by the task's name when
    there are several tasks. A ``multi`` label is a list; its score is the largest."""
    prefix = "" if alone else f"{task.name}_"
    best = None if prediction.scores is None else prediction.scores.max(axis=1)
    names: list[Any]
    if task.kind == "multi":
        names = [[task.classes[i] for i in np.flatnonzero(row)] for row in prediction.labels]
    else:
        names = [None if label < 0 else task.classes[label] for label in prediction.labels]
        if threshold is not None and best is not None:
            names = [
                UNKNOWN if score < threshold else name
                for name, score in zip(names, best, strict=True)
            ]
    columns: dict[str, Any] = {f"{prefix}label": names}
    if best is not None:
        columns[f"{prefix}score"] = best
    if scores and prediction.scores is not None:
        for index, name in enumerate(task.classes):
            columns[f"{prefix}score:{name}"] = prediction.scores[:, index]
    return columns


def write_part(path: Path, table: pa.Table) -> None:
    """Write aside, then rename: a part is complete or absent."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table, aside, compression="zstd")
    aside.replace(path)
