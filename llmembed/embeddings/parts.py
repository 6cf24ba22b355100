"""One part of a store: a Parquet file that bears its row count and its own checksum in its name.

Columns: ``key`` fixed-size binary (16), ``tokens`` int32 (those that the model read),
``full_tokens`` int32 (those of the whole text), ``vector`` fixed-size list of R·D float16, or
float32 where a value of the part would overflow. What the part took stands in the file's key-value
metadata.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from llmembed.contract import Usage
from llmembed.embeddings.keys import KEY_BYTES, Keys, from_bytes, to_bytes
from llmembed.errors import ModelError, StoreError

_NAME = re.compile(r"part-(\d{8})-([0-9a-f]{32})\.parquet")
_METADATA = b"llmembed"


class DamagedPartError(Exception):
    """A part's bytes are not those that were written. Handled in this room, never a user's."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """K rows. ``vectors``: float16 or float32 (K, R·D). ``padding`` counts the pad tokens that the
    model computed beside ``tokens``; ``usage`` is what embedding these rows took."""

    keys: Keys
    tokens: npt.NDArray[np.int32]
    full_tokens: npt.NDArray[np.int32]
    vectors: npt.NDArray[Any]
    usage: Usage
    padding: int


@dataclass(frozen=True, kw_only=True)
class Head:
    """What can be known of a part without reading its vectors."""

    keys: Keys
    wide: bool  # float32


def is_part(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def encode(part: Part) -> tuple[str, bytes]:
    """A part's file name and bytes. Raises ``ModelError`` where a vector is not finite."""
    vectors = part.vectors
    largest = float(np.abs(vectors).max(initial=0.0))
    if not np.isfinite(largest):
        raise ModelError(
            "the backbone gave a vector that is not finite (NaN or infinite); "
            "try another dtype, for example float32"
        )
    kind = np.float16 if largest <= float(np.finfo(np.float16).max) else np.float32
    flat = pa.array(np.ascontiguousarray(vectors, dtype=kind).reshape(-1))
    facts = {"usage": part.usage.to_json(), "padding": part.padding}
    schema = pa.schema(
        [
            pa.field("key", pa.binary(KEY_BYTES), nullable=False),
            pa.field("tokens", pa.int32(), nullable=False),
            pa.field("full_tokens", pa.int32(), nullable=False),
            pa.field("vector", pa.list_(flat.type, vectors.shape[1]), nullable=False),
        ],
        metadata={_METADATA: json.dumps(facts).encode()},
    )
    table = pa.table(
        [
            pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(KEY_BYTES), len(part.keys), [None, pa.py_buffer(to_bytes(part.keys))]
            ),
            pa.array(part.tokens, pa.int32()),
            pa.array(part.full_tokens, pa.int32()),
            pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        ],
        schema=schema,
    )
    buffer = io.BytesIO()
    # Floats of a network hardly compress; page checksums let a reader of single columns notice
    # damage without reading the whole file.
    pq.write_table(
        table, buffer, compression="none", use_dictionary=False, write_page_checksum=True
    )
    content = buffer.getvalue()
    digest = hashlib.sha256(content).hexdigest()[:32]
    return f"part-{len(part.keys):08d}-{digest}.parquet", content


def decode(name: str, content: bytes) -> Part:
    """The part that ``encode`` wrote. Raises ``DamagedPartError`` where the checksum differs."""
    found = _NAME.fullmatch(name)
    if found is None or hashlib.sha256(content).hexdigest()[:32] != found[2]:
        raise DamagedPartError(f"{name}: the checksum in its name is not that of its bytes")
    table = pq.read_table(pa.BufferReader(content)).combine_chunks()
    column = table.column("vector").combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    facts: Mapping[str, Any] = json.loads(table.schema.metadata[_METADATA])
    return Part(
        keys=_keys(table.column("key")),
        tokens=table.column("tokens").to_numpy(),
        full_tokens=table.column("full_tokens").to_numpy(),
        vectors=flat.reshape(table.num_rows, -1),
        usage=Usage.from_json(facts["usage"]),
        padding=int(facts["padding"]),
    )


def head(name: str, file: IO[bytes]) -> Head:
    """The keys of the part in ``file``.

    What looks like damage may be a disk or network that failed for a moment: a part is damaged only
    when the checksum over its whole file says so. Raises ``DamagedPartError``, ``StoreError`` where
    the file can't be read.
    """
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            table = parquet.read(columns=["key"])
            schema = parquet.schema_arrow
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        return _head_of_whole(name, file, error)
    found = _NAME.fullmatch(name)
    if found is None or int(found[1]) != table.num_rows:
        raise DamagedPartError(f"{name}: holds {table.num_rows} rows")
    wide = schema.field("vector").type.value_type == pa.float32()
    return Head(keys=_keys(table.column("key")), wide=wide)


def _head_of_whole(name: str, file: IO[bytes], before: Exception) -> Head:
    """As ``head``, after it failed with ``before``: by reading all of ``file`` again."""
    try:
        file.seek(0)
        content = file.read()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise StoreError(f"{name} can't be read: {error}") from before
    try:
        part = decode(name, content)
    except (pa.ArrowException, ValueError, KeyError) as error:
        raise StoreError(f"{name} is whole but can't be understood: {error}") from before
    return Head(keys=part.keys, wide=part.vectors.dtype == np.float32)


def _keys(column: pa.ChunkedArray) -> Keys:
    return from_bytes(b"".join(column.to_pylist()))
