"""``predict`` into an object store."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from topic_files import topic_of, write_csv

from llmembed.pipelines.predict import predict


def test_labels_in_an_object_store(s3: Any, model: str, tmp_path: Path) -> None:
    s3.create_bucket(Bucket="labels")
    data = write_csv(tmp_path / "a.csv", range(2100))
    settings: dict[str, Any] = {
        "model": model,
        "data": [str(data)],
        "text_column": "body",
        "local": True,
        "files": str(tmp_path),
    }
    done = predict(**settings, output="s3://labels/run/parts")
    assert done.rows == 2100
    s3.delete_object(Bucket="labels", Key="run/parts/part-00000-000001.parquet")
    again = predict(**settings, output="s3://labels/run/parts")
    assert (again.rows, again.reused_rows) == (2100, 1076)
    predict(**settings, output="s3://labels/run/labels.csv")
    keys = [found["Key"] for found in s3.list_objects_v2(Bucket="labels")["Contents"]]
    files = [key for key in keys if not key.endswith("/") and "run/parts/" not in key]
    assert files == ["run/labels.csv"]
    body = s3.get_object(Bucket="labels", Key="run/labels.csv")["Body"].read().decode()
    rows = list(csv.DictReader(body.splitlines()))
    assert [row["label"] for row in rows] == [topic_of(row) for row in range(2100)]
