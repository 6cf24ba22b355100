"""A store on s3: a real server of that protocol on the loopback address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bert import make_texts

from llmembed.cluster import LocalRuntime
from llmembed.embeddings import Store, embed


@pytest.fixture
def bucket(s3: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address below a fresh bucket, its server named in the address alone."""
    s3.create_bucket(Bucket="texts")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    server = s3.meta.endpoint_url.removeprefix("http://")
    return f"s3://texts/here?endpoint_override={server}&scheme=http&region=us-east-1"


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
