"""What the tests of sources share: rows, files that hold them, and a short way to read them."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from llmembed.texts import Columns, Corpus, CorpusSource, load_corpus

ROWS = [(f"text number {i}, with a comma", "ab"[i % 2]) for i in range(200)]


HEADER = b"text,label\n"


def csv_bytes(rows: list[tuple[str, str]] = ROWS) -> bytes:
    return HEADER + "".join(f'"{text}",{label}\n' for text, label in rows).encode()


def load(path: Path | list[Path], tmp_path: Path, **columns: object) -> Corpus:
    limit = columns.pop("max_bad_fraction", 0.01)
    source = CorpusSource.files(path, columns=Columns(**columns))  # type: ignore[arg-type]
    return load_corpus(
        source,
        quarantine_folder=tmp_path / "quarantine",
        max_bad_fraction=limit,  # type: ignore[arg-type]
    )


def pairs(corpus: Corpus, task: str = "label") -> list[tuple[str, str]]:
    """Every (text, class name), in no order."""
    classes = next(t.classes for t in corpus.tasks if t.name == task)
    return sorted(
        (text, classes[label])
        for part in corpus.splits.values()
        for text, label in zip(part.texts, part.labels[task], strict=True)
    )


def quarantined(corpus: Corpus) -> list[tuple[int, str]]:
    assert corpus.quarantined is not None
    lines = corpus.quarantined.path.read_text("utf-8").splitlines()
    assert len(lines) == corpus.quarantined.count
    return [(record["line"], record["reason"]) for record in map(json.loads, lines)]


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    table = pa.table(
        {"id": range(len(rows)), "text": [t for t, _ in rows], "label": [c for _, c in rows]}
    )
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=64)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        cut = "\t" if path.suffix == ".tsv" else ","
        quote = "" if path.suffix == ".tsv" else '"'
        lines = [f"{i}{cut}{quote}{t}{quote}{cut}{c}" for i, (t, c) in enumerate(rows)]
        path.write_text("\n".join([cut.join(["id", "text", "label"]), *lines]) + "\n")
    return path
