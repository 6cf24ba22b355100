"""A store on s3: a real server of that protocol on the loopback address."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bert import make_texts

from llmembed.cluster import LocalRuntime
from llmembed.embeddings import Store, embed


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An address below a fresh bucket."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    import boto3

    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket="texts")
    yield f"s3://texts/here?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    server.stop()


def test_embed_on_s3_reuses_and_repairs(
    bucket: str, tmp_path: Path, tiny_spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMEMBED_CACHE_DIR", str(tmp_path / "cache"))
    texts = make_texts(60)
    local = embed(tiny_spec, texts, LocalRuntime(tmp_path / "local"), part_rows=20)
    first = embed(tiny_spec, texts[:40], LocalRuntime(bucket), part_rows=20)
    assert first.path is not None and first.path.is_relative_to(tmp_path / "cache")
    got = embed(tiny_spec, texts, LocalRuntime(bucket), part_rows=20)
    assert (got.computed, got.reused) == (20, 40)
    np.testing.assert_allclose(got.vectors, local.vectors, atol=4e-3, rtol=2e-3)

    store = Store(bucket, tiny_spec)
    victim = store.parts()[0]
    rows = len(store.head(victim).keys)
    content = bytearray(store.folder.read(victim))
    content[len(content) // 2] ^= 1
    store.folder.write(victim, bytes(content))
    again = embed(tiny_spec, texts[::-1], LocalRuntime(bucket))
    assert (again.computed, again.damaged) == (rows, (victim,))
    assert store.folder.child("damaged").names() == [victim]
    store.set_aside(victim)  # as another process does, a moment later
    np.testing.assert_allclose(again.vectors, local.vectors[::-1], atol=4e-3, rtol=2e-3)
