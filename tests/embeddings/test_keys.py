"""Keys: what names a text, and finding names."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pytest

from llmembed.embeddings.keys import distinct, find, keys_of, to_bytes
from llmembed.errors import DataError


def test_a_key_is_the_digest_of_the_exact_bytes() -> None:
    texts = ["a", "a ", "é", "e\u0301", ""]
    digests = [blake2b(t.encode(), digest_size=16).digest() for t in texts]
    assert to_bytes(keys_of(texts)) == b"".join(digests)
    assert len(set(digests)) == 5


@pytest.mark.parametrize("wrong", ["\ud800", None, 3])
def test_what_is_no_unicode_text_is_named_with_its_row(wrong: object) -> None:
    with pytest.raises(DataError, match="text 1 can't be embedded"):
        keys_of(["fine", wrong])  # type: ignore[list-item]


@pytest.mark.parametrize("shard_rows", [10_000, 64, 7])
def test_distinct_agrees_with_a_dict_whatever_the_shards(shard_rows: int) -> None:
    texts = [f"t{i % 137}" for i in np.random.default_rng(0).integers(0, 500, 600)]
    keys = keys_of(texts)
    unique, first, place = distinct(keys, shard_rows=shard_rows)
    seen: dict[str, int] = {}
    for row, text in enumerate(texts):
        seen.setdefault(text, row)
    assert sorted(first.tolist()) == sorted(seen.values())
    assert (unique[place] == keys).all()
    pairs = [tuple(key) for key in unique.tolist()]
    assert pairs == sorted(set(pairs))


def test_find_tells_keys_apart_that_share_their_first_half() -> None:
    among = np.array([[1, 5], [7, 1], [7, 2], [7, 9], [8, 0], [2**64 - 1, 3]], dtype=np.uint64)
    wanted = np.array(
        [[7, 9], [7, 1], [7, 3], [0, 0], [2**64 - 1, 3], [2**64 - 1, 4], [8, 0]], dtype=np.uint64
    )
    assert find(wanted, among).tolist() == [3, 1, -1, -1, 5, -1, 4]
    assert find(wanted[:0], among).tolist() == []
    assert find(wanted, among[:0]).tolist() == [-1] * 7
