"""``predict`` into an object store."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from topic_files import (
    topic_of,
    write_csv,
)

from llmembed.pipelines import predict


@pytest.fixture
def bucket() -> Iterator[str]:
    moto = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    import boto3

    from llmembed.texts.files import _remote

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        _remote.cache_clear()
        boto3.client("s3").create_bucket(Bucket="labels")
        yield "s3://labels"
    server.stop()
    _remote.cache_clear()


def test_labels_in_an_object_store(bucket: str, model: str, tmp_path: Path) -> None:
    import boto3

    data = write_csv(tmp_path / "a.csv", range(2100))
    settings: dict[str, Any] = {
        "model": model,
        "data": [str(data)],
        "text_column": "body",
        "local": True,
        "files": str(tmp_path),
    }
    done = predict(**settings, output=f"{bucket}/run/parts")
    assert done.rows == 2100
    client = boto3.client("s3")
    client.delete_object(Bucket="labels", Key="run/parts/part-00000-000001.parquet")
    again = predict(**settings, output=f"{bucket}/run/parts")
    assert (again.rows, again.reused_rows) == (2100, 1076)
    predict(**settings, output=f"{bucket}/run/labels.csv")
    keys = [found["Key"] for found in client.list_objects_v2(Bucket="labels")["Contents"]]
    files = [key for key in keys if not key.endswith("/") and "run/parts/" not in key]
    assert files == ["run/labels.csv"]
    body = client.get_object(Bucket="labels", Key="run/labels.csv")["Body"].read().decode()
    rows = list(csv.DictReader(body.splitlines()))
    assert [row["label"] for row in rows] == [topic_of(row) for row in range(2100)]
