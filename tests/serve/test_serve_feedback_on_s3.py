"""Feedback beside a remote store: each correction an object, read again by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llmembed.pipelines.assembly import feedback_address
from llmembed.texts.feedback import _lines
from llmembed.texts.files import _remote
from serve.feedback import FeedbackFiles

moto_server = pytest.importorskip("moto.server", reason="moto[server] is not installed")


@pytest.fixture()
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    import boto3

    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    _remote.cache_clear()
    boto3.client("s3").create_bucket(Bucket="files")
    yield "s3://files/here"
    server.stop()
    _remote.cache_clear()


def test_corrections_are_objects_that_fit_finds_by_name(bucket: str) -> None:
    files = FeedbackFiles(bucket, "0", most_bytes=1024)
    for number in range(3):
        files.add("news", {"text": f"text {number}", "task": "topic", "label": "a"})
    found = [row for _, row in _lines(feedback_address("news", bucket))]
    assert sorted(row["text"] for row in found) == ["text 0", "text 1", "text 2"]
