"""Keys that MLflow takes, whatever columns and classes are called."""

from __future__ import annotations

import posixpath

import pytest

from llmembed.tracking import Tracking
from llmembed.tracking.values import clean_key

NAMES = [
    *("../up", "..", ".", "a/..", "a/./b", "/top", "a//b", "...", "./.", " ", "Topic (final)"),
    *("50% [x]?", "n/a", "a/b/", "x" * 300, "x" * 243 + "/" * 9 + "y"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_key_is_a_path_as_mlflow_wants_it(name: str) -> None:
    key = clean_key(f"valid/{name}/accuracy")
    assert posixpath.normpath(key) == key
    assert not key.startswith((".", "/")) and len(key) <= 250


def test_mlflow_takes_them_all(tracking: Tracking) -> None:
    with tracking.run("odd names") as run:
        run.metrics({f"valid/{name}/accuracy": 0.5 for name in NAMES})
    found = tracking.client.get_run(run.id).data.metrics
    assert set(found) == {clean_key(f"valid/{name}/accuracy") for name in NAMES}
