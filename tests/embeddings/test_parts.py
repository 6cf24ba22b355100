"""One part: what is written, what is read, what damage does."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmembed.contract import Usage
from llmembed.embeddings.keys import keys_of
from llmembed.embeddings.parts import DamagedPartError, Part, decode, encode, head
from llmembed.errors import ModelError, StoreError


def part(vectors: np.ndarray) -> Part:
    rows = len(vectors)
    return Part(
        keys=keys_of([str(i) for i in range(rows)]),
        tokens=np.arange(1, rows + 1, dtype=np.int32),
        full_tokens=np.arange(2, rows + 2, dtype=np.int32),
        vectors=vectors,
        usage=Usage(seconds=2.0, estimated_joules={"cpu": 4.0}, tokens=7),
        padding=3,
    )


def test_what_is_written_is_read_and_vectors_are_halves() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    name, content = encode(part(vectors))
    got = decode(name, content)
    assert got.vectors.dtype == np.float16
    assert (got.vectors == vectors.astype(np.float16)).all()
    assert (got.keys == part(vectors).keys).all()
    assert got.tokens.tolist() == [1, 2, 3, 4, 5] and got.full_tokens.tolist() == [2, 3, 4, 5, 6]
    assert got.usage == Usage(seconds=2.0, estimated_joules={"cpu": 4.0}, tokens=7)
    assert got.padding == 3


def test_a_part_whose_values_overflow_halves_is_written_in_float32() -> None:
    vectors = np.array([[1.0, 70_000.0], [0.1, -2.0]], dtype=np.float32)
    name, content = encode(part(vectors))
    assert head(name, io.BytesIO(content)).wide
    assert (decode(name, content).vectors == vectors).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_refused(wrong: float) -> None:
    with pytest.raises(ModelError, match="not finite"):
        encode(part(np.array([[1.0, wrong]], dtype=np.float32)))


def test_columns_are_plain_arrow() -> None:
    _, content = encode(part(np.zeros((2, 4), dtype=np.float32)))
    schema = pq.read_schema(pa.BufferReader(content))
    assert schema.field("key").type == pa.binary(16)
    assert schema.field("tokens").type == schema.field("full_tokens").type == pa.int32()
    vector = schema.field("vector").type
    assert pa.types.is_fixed_size_list(vector)
    assert (vector.list_size, vector.value_type) == (4, pa.float16())
    assert b"ARROW:extension:name" not in content


def test_any_flipped_byte_is_noticed() -> None:
    name, content = encode(part(np.ones((40, 8), dtype=np.float32)))
    for place in np.random.default_rng(1).integers(0, len(content), 60).tolist():
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        with pytest.raises(DamagedPartError):
            decode(name, bytes(damaged))
    with pytest.raises(DamagedPartError):
        decode(name, content[:-1])


class Failing(io.BytesIO):
    """A disk that fails the first ``times`` reads."""

    def __init__(self, content: bytes, times: int) -> None:
        super().__init__(content)
        self.times = times

    def read(self, size: int | None = -1) -> bytes:
        if self.times:
            self.times -= 1
            raise OSError("the network was away")
        return super().read(size)


def test_a_disk_that_fails_for_a_moment_makes_no_part_damaged() -> None:
    name, content = encode(part(np.ones((40, 8), dtype=np.float32)))
    got = head(name, Failing(content, 1))
    assert (got.keys == part(np.ones((40, 8))).keys).all() and not got.wide
    with pytest.raises(StoreError, match="can't be read: the network was away"):
        head(name, Failing(content, 100))


def test_a_truncated_part_has_no_readable_keys() -> None:
    name, content = encode(part(np.ones((40, 8), dtype=np.float32)))
    assert len(head(name, io.BytesIO(content)).keys) == 40
    for length in (0, 10, len(content) // 2, len(content) - 1):
        with pytest.raises(DamagedPartError):
            head(name, io.BytesIO(content[:length]))
