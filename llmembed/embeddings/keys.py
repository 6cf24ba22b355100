"""A text's 128-bit name, and finding many names among many.

A key is the 16-byte BLAKE2b digest of the text's UTF-8 bytes, exactly as they are. In memory K
keys are uint64 (K, 2), the digest's first and last eight bytes, ordered by the first column, then
the second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from llmembed.errors import DataError

KEY_BYTES = 16
Keys = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]


def keys_of(texts: Sequence[str]) -> Keys:
    """The keys of N texts, uint64 (N, 2). Raises ``DataError`` for what is no Unicode text."""
    digests = bytearray()
    for row, text in enumerate(texts):
        try:
            digests += blake2b(text.encode("utf-8"), digest_size=KEY_BYTES).digest()
        except (AttributeError, UnicodeEncodeError):
            raise DataError(
                f"text {row} can't be embedded: expected Unicode text, got {text!r:.60}"
            ) from None
    return from_bytes(digests)


def from_bytes(digests: bytes | bytearray | memoryview) -> Keys:
    """K digests in a row -> uint64 (K, 2)."""
    return np.frombuffer(bytes(digests), dtype="<u8").reshape(-1, 2).astype(np.uint64)


def to_bytes(keys: Keys) -> bytes:
    """uint64 (K, 2) -> K digests in a row."""
    return keys.astype("<u8").tobytes()


def distinct(keys: Keys, *, shard_rows: int) -> tuple[Keys, Rows, Rows]:
    """The U distinct keys of N, sorted; the first row of each (U,); and for each of the N rows
    the place of its key among the distinct ones (N,).

    Beyond ``shard_rows`` rows, keys are taken by prefix, one shard of about that many rows after
    another, so that sorting needs little memory beside the result.
    """
    shards = max(1, math.ceil(len(keys) / shard_rows))
    bits = math.ceil(math.log2(shards))
    order = np.empty(len(keys), dtype=np.int64)
    filled = 0
    prefixes = keys[:, 0] >> np.uint64(64 - bits) if bits else None
    for shard in range(2**bits):
        rows = np.arange(len(keys)) if prefixes is None else np.flatnonzero(prefixes == shard)
        # lexsort is stable: the first row of equal keys comes first.
        rows = rows[np.lexsort((keys[rows, 1], keys[rows, 0]))]
        order[filled : filled + len(rows)] = rows
        filled += len(rows)
    ordered = keys[order]
    starts = np.ones(len(keys), dtype=np.bool_)
    starts[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    place = np.empty(len(keys), dtype=np.int64)
    place[order] = np.cumsum(starts) - 1
    return ordered[starts], order[starts], place


def find(wanted: Keys, among: Keys) -> Rows:
    """For each of ``wanted`` (K, 2) its place in the sorted, distinct ``among`` (U, 2), or -1."""
    places = np.searchsorted(among[:, 0], wanted[:, 0], side="left").astype(np.int64)
    found = np.full(len(wanted), -1, dtype=np.int64)
    open_rows = np.arange(len(wanted))
    # Keys that agree in their first half stand in a row; step through them together.
    while len(open_rows):
        at = places[open_rows]
        inside = at < len(among)
        open_rows, at = open_rows[inside], at[inside]
        same = among[at, 0] == wanted[open_rows, 0]
        open_rows, at = open_rows[same], at[same]
        hit = among[at, 1] == wanted[open_rows, 1]
        found[open_rows[hit]] = at[hit]
        open_rows = open_rows[~hit]
        places[open_rows] += 1
    return found
