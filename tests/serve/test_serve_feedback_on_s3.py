"""Feedback beside a remote store: each correction an object, read again by name."""

from __future__ import annotations

from typing import Any

from llmembed.pipelines.corpus import feedback_address
from llmembed.texts.feedback import _lines
from serve.model.feedback import FeedbackFiles


def test_corrections_are_objects_that_fit_finds_by_name(s3: Any) -> None:
    s3.create_bucket(Bucket="files")
    bucket = "s3://files/here"
    files = FeedbackFiles(bucket, "0", most_bytes=1024)
    for number in range(3):
        files.add("news", {"text": f"text {number}", "task": "topic", "label": "a"})
    found = [row for _, row in _lines(feedback_address("news", bucket))]
    assert sorted(row["text"] for row in found) == ["text 0", "text 1", "text 2"]
