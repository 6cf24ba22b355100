"""The stage that labels texts on actors: a chunk of one input file in, its part written."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from llmembed.contract import UNKNOWN, Classifier, Prediction, Reader, Task, unanswered_rows
from llmembed.permissions import Allowed
from llmembed.pipelines.predict.endpoint import load_for_run
from llmembed.pipelines.predict.parts import Parts, part_name

COLUMNS = ("file", "index", "text")
"""What a labelled row is known by; ``index`` is its number in its file, from 0."""
PART = "\x00part"
"""The column that names a chunk's part on its way to the labeller; no file has one called so."""
SHIP_AT_MOST = 256 * 2**20
"""Bytes of a classifier's folder that travel to the actors; a larger one must lie on a path that
every node sees."""


@dataclass(frozen=True, kw_only=True)
class Chunks:
    """A reader whose tables become rows: one row a chunk, so that a chunk is never split or
    merged on its way. Chunks whose part is ``done`` are passed over."""

    number: int
    reader: Reader
    done: frozenset[str]

    def __call__(self) -> Iterator[pa.Table]:
        for index, table in enumerate(self.reader()):
            part = part_name(self.number, index)
            if part not in self.done and table.num_rows:
                ends = pa.array([0, table.num_rows], pa.int32())
                columns = {
                    name: pa.ListArray.from_arrays(ends, table[name].combine_chunks())
                    for name in table.column_names
                }
                yield pa.table({PART: [part], **columns})


@dataclass(frozen=True, kw_only=True)
class MakeLabeller:
    """Picklable; makes the labeller inside a worker. ``content``: file name -> bytes of the
    classifier's folder, or None where ``folder`` itself can be read by every worker. ``keep``:
    columns of the data handed on. ``of_a_run`` and ``allowed``: see ``endpoint.load_for_run``."""

    folder: str
    content: Mapping[str, bytes] | None
    parts: Parts
    keep: tuple[str, ...]
    scores: bool
    unknown_below: Mapping[str, float]
    of_a_run: Mapping[str, Any] = field(default_factory=dict)
    allowed: Allowed = field(default_factory=Allowed)

    @classmethod
    def of(
        cls,
        folder: Path,
        *,
        parts: Parts,
        keep: tuple[str, ...],
        scores: bool,
        unknown_below: Mapping[str, float],
        of_a_run: Mapping[str, Any],
        allowed: Allowed,
    ) -> MakeLabeller:
        files = [path for path in folder.rglob("*") if path.is_file()]
        small = sum(path.stat().st_size for path in files) <= SHIP_AT_MOST
        return cls(
            folder=str(folder.resolve()),
            content={str(p.relative_to(folder)): p.read_bytes() for p in files} if small else None,
            parts=parts,
            keep=keep,
            scores=scores,
            unknown_below=unknown_below,
            of_a_run=of_a_run,
            # Loaded where the command runs: what lay in that machine's cache may be fetched here.
            allowed=replace(allowed, hub=True),
        )

    def __call__(self) -> Labeller:
        if self.content is None:
            return self._labeller(self.folder)
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self.content.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return self._labeller(folder)

    def _labeller(self, folder: str) -> Labeller:
        classifier = load_for_run(folder, self.of_a_run, self.allowed)
        return Labeller(classifier=classifier, settings=self)


@dataclass(frozen=True, kw_only=True)
class Labeller:
    """Labels chunks, writes their parts, returns one small row a part. A chunk with texts that got
    no answer has no part (``unanswered``; what was answered lies in the cache of answers): it is
    labelled again by the next run."""

    classifier: Classifier
    settings: MakeLabeller

    def __call__(self, chunks: pa.Table) -> pa.Table:
        from llmembed.metering import Meter

        done = []
        for row in range(chunks.num_rows):
            part = chunks[PART][row].as_py()
            columns = {name: chunks[name][row].values for name in (*COLUMNS, *self.settings.keep)}
            with Meter() as meter:
                predictions = self.classifier.predict(columns["text"].to_pylist())
            used = getattr(self.classifier, "predict_usage", meter.usage)
            for task in self.classifier.tasks:
                columns |= answers(
                    task,
                    predictions[task.name],
                    alone=len(self.classifier.tasks) == 1,
                    scores=self.settings.scores,
                    unknown_below=self.settings.unknown_below.get(task.name),
                )
            table = pa.table(columns)
            unanswered = int(unanswered_rows(predictions).sum())
            if not unanswered:
                self.settings.parts.write(part, table)
            unread = np.any([each.invalid for each in predictions.values()], axis=0)
            done.append(
                {
                    "part": part,
                    "rows": table.num_rows,
                    "unread": int(unread.sum()) - unanswered,
                    "unanswered": unanswered,
                    "why": "; ".join(getattr(self.classifier, "complaints", ())[:1]),
                    "refused": [
                        f"{table['file'][at]}, row {table['index'][at]}: {why}"
                        for at, why in sorted(getattr(self.classifier, "refused", {}).items())
                    ],
                    "usage": json.dumps(used.to_json()),
                }
            )
        return pa.Table.from_pylist(done)


def answer_columns(task: Task, *, alone: bool, scores: bool, abstains: bool) -> list[str]:
    """The names of the output columns of one task: ``label``, ``score`` and, where it ``abstains``
    below a threshold, ``abstained``; prefixed by the task's name when there are several tasks."""
    prefix = "" if alone else f"{task.name}_"
    told = [f"{prefix}abstained"] if abstains else []
    named = [f"{prefix}score:{name}" for name in task.classes] if scores else []
    return [f"{prefix}label", f"{prefix}score", *told, *named]


def answers(
    task: Task,
    prediction: Prediction,
    *,
    alone: bool,
    scores: bool,
    unknown_below: float | None,
) -> dict[str, pa.Array]:
    """The output columns of one task.

    ``single``: the class, null where the answer could not be read, and its score; below
    ``unknown_below`` the class is ``unknown`` and ``abstained`` true, which a class of that name
    is not. ``multi``: the list of classes and the largest
    score. ``tokens``: the tags of the words and their scores, as lists.
    """
    abstains = task.kind == "single" and unknown_below is not None
    label_column, score_column, *more = answer_columns(
        task, alone=alone, scores=scores, abstains=abstains
    )
    class_columns = more[abstains:]
    best = None if prediction.scores is None else _best(task, prediction.labels, prediction.scores)
    if task.kind == "multi":
        chosen = [[task.classes[i] for i in np.flatnonzero(row)] for row in prediction.labels]
        columns = {label_column: pa.array(chosen, pa.list_(pa.string()))}
    else:
        names = [None if label < 0 else task.classes[label] for label in prediction.labels]
        below = np.zeros(len(names), dtype=bool)
        if abstains and best is not None and unknown_below is not None:
            below = (best < unknown_below) & ~prediction.invalid  # no answer is not a doubt
            names = [UNKNOWN if low else name for name, low in zip(names, below, strict=True)]
        columns = {label_column: pa.array(names, pa.string())}
    if best is not None:
        columns[score_column] = pa.array(best, pa.float32())
    if abstains:
        columns[more[0]] = pa.array(below)
    if prediction.scores is not None:
        for index, column in enumerate(class_columns):
            columns[column] = pa.array(prediction.scores[:, index], pa.float32())
    if task.kind == "tokens":
        assert prediction.offsets is not None
        ends = pa.array(prediction.offsets, pa.int32())
        columns = {name: pa.ListArray.from_arrays(ends, words) for name, words in columns.items()}
    return columns


def _best(
    task: Task, labels: npt.NDArray[Any], scores: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """(N,): for ``multi`` the largest score, else the answer's, under costs not always the largest;
    of an unreadable answer the largest."""
    largest: npt.NDArray[np.float32] = scores.max(axis=1)
    if task.kind == "multi":
        return largest
    own = scores[np.arange(len(labels)), np.maximum(labels, 0)]
    return np.where(labels < 0, largest, own)
