"""Texts whose topic follows from their row, a classifier and files of them, what came out."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from llmembed.contract import Examples, Silent, Task
from llmembed.methods.frozen.lexical import Lexical

TOPICS = {
    "grain": "wheat corn harvest tonnes crop",
    "money": "bank rates dollar yen bond",
    "oil": "barrel crude opec supply drilling",
}
TOPIC = Task(name="topic", classes=tuple(TOPICS))
TONES = Task(name="tones", classes=("fell", "rose"), kind="multi")


def text_of(row: int) -> str:
    """Of the topic ``row % 3``; it rose where ``row`` is even, fell where it divides by three."""
    words = list(TOPICS.values())[row % 3].split()
    moves = ("rose " if row % 2 == 0 else "") + ("fell " if row % 3 == 0 else "")
    return f"{moves}the {words[row % 5]} and {words[row % 4]} of the {words[row % 2]}"


def topic_of(row: int) -> str:
    return list(TOPICS)[row % 3]


def save_classifier(folder: Path, *tasks: Task) -> Path:
    rows = range(120)
    labels = {
        "topic": np.array([row % 3 for row in rows]),
        "tones": np.array([[row % 3 == 0, row % 2 == 0] for row in rows]),
    }
    examples = Examples(
        texts=[text_of(row) for row in rows], labels={t.name: labels[t.name] for t in tasks}
    )
    from llmembed.cluster import LocalRuntime

    runtime = LocalRuntime(folder)
    Lexical(inverse_penalties=[100.0]).fit(tasks, examples, examples, runtime, Silent()).save(
        folder
    )
    return folder


def write_csv(path: Path, rows: range) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "body"])
        writer.writerows([row, text_of(row)] for row in rows)
    return path


def labelled(folder: Path) -> list[dict[str, Any]]:
    """All rows of an output folder, in the order of its parts."""
    tables = [pq.read_table(part) for part in sorted(folder.glob("part-*.parquet"))]
    return pa.concat_tables(tables).to_pylist()
