"""Files in an object store: a real S3 server (moto) on the loopback."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from llmembed.errors import DataError
from llmembed.texts import Columns, CorpusSource, load_corpus, readers

CSV = "text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(100))


@pytest.fixture(scope="module")
def bucket(s3: Any) -> str:
    s3.create_bucket(Bucket="texts")
    for name, body in {
        "data/train.csv": CSV.encode(),
        "data/test.csv": b"text,label\nnew,b\n,a\n",
        "data/_SUCCESS": b"",
        "more/rows.csv": CSV.encode(),
    }.items():
        s3.put_object(Bucket="texts", Key=name, Body=body)
    return "s3://texts"


def test_a_file_a_folder_and_a_glob(bucket: str, tmp_path: Path) -> None:
    def rows(path: str) -> int:
        source = CorpusSource.files(path, columns=Columns())
        corpus = load_corpus(source, quarantine_folder=tmp_path, max_bad_fraction=0.1)
        return sum(len(part) for part in corpus.splits.values())

    assert rows(f"{bucket}/data/train.csv") == 100
    assert rows(f"{bucket}/data") == rows(f"{bucket}/data/") == 101
    assert rows(f"{bucket}/**/train.csv") == 100
    with pytest.raises(DataError, match=r"named as splits, but s3://texts/more/rows\.csv is not"):
        rows(f"{bucket}/*/*.csv")
    assert rows(f"{bucket}/mo*/*.csv") == 100
    with pytest.raises(DataError, match="no file or folder"):
        rows(f"{bucket}/none.csv")


def test_readers_and_a_quarantine_in_the_store(bucket: str) -> None:
    found = readers(f"{bucket}/data", "text", 30, quarantine_folder=f"{bucket}/quarantine")
    tables = [t for reader in pickle.loads(pickle.dumps(found)) for t in reader()]  # noqa: S301
    assert sum(table.num_rows for table in tables) == 101
    assert max(table.num_rows for table in tables) <= 30
    [bad] = readers(f"{bucket}/quarantine", "reason", keep=["line"])
    records = [row for table in bad() for row in table.to_pylist()]
    assert [(row["text"], json.loads(row["line"])) for row in records] == [("the text is empty", 3)]
