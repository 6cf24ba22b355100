"""Cutting the rows that are missing into blocks; each becomes one part of the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from llmembed.embeddings.keys import KEY_BYTES, Keys, Rows, to_bytes

SMALLEST_ROWS = 64
REMAINING_SHARE = 8
"""A block takes at most this fraction (1/8) of the work left, so that workers end together."""

BLOCK_CHARACTERS = 4 * 2**20
"""A block takes at most this much work, about a million tokens, unless it is one text alone: texts
that are read whole, window by window, may be of any length."""

_CHARACTERS_PER_TOKEN = 8
_FIXED_COST = 16  # of a text, in characters: special tokens, its share of a batch


def cut(weights: npt.NDArray[np.int64], *, rows: int) -> Iterator[slice]:
    """Slices of ``weights`` (N,), falling in work: guided self-scheduling (Polychronopoulos and
    Kuck, 1987), with at most ``rows`` rows and ``BLOCK_CHARACTERS`` each and otherwise, until the
    end, at least ``SMALLEST_ROWS`` rows."""
    done = np.cumsum(weights)
    start = 0
    while start < len(weights):
        before = int(done[start - 1]) if start else 0
        share = (int(done[-1]) - before) / REMAINING_SHARE
        stop = int(np.searchsorted(done, before + share, side="right"))
        stop = min(max(stop, start + min(SMALLEST_ROWS, rows)), start + rows, len(weights))
        most = int(np.searchsorted(done, before + BLOCK_CHARACTERS, side="right"))
        stop = max(min(stop, most), start + 1)
        yield slice(start, stop)
        start = stop


def weights_of(texts: Sequence[str], *, max_tokens: int | None) -> npt.NDArray[np.int64]:
    """About how much work each text is, in characters; a cut text costs no more than its cut."""
    lengths = np.fromiter((len(text) for text in texts), dtype=np.int64, count=len(texts))
    if max_tokens is not None:
        lengths = np.minimum(lengths, max_tokens * _CHARACTERS_PER_TOKEN)
    return lengths + _FIXED_COST


def table_of(
    keys: Keys, texts: Sequence[str], chosen: Rows, *, max_tokens: int | None, rows: int
) -> pa.Table:
    """``key`` and ``text`` of the ``chosen`` rows, one chunk for each block.

    Longest texts first: texts of one length fill a block, so little is padded, and the last blocks
    are the quick ones.
    """
    selected = [texts[int(row)] for row in chosen]
    weights = weights_of(selected, max_tokens=max_tokens)
    order = np.argsort(-weights, kind="stable")
    batches = []
    for piece in cut(weights[order], rows=rows):
        block = order[piece]
        digests = pa.py_buffer(to_bytes(keys[chosen[block]]))
        key = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(KEY_BYTES), len(block), [None, digests]
        )
        text = pa.array([selected[i] for i in block], pa.large_string())
        batches.append(pa.RecordBatch.from_arrays([key, text], names=["key", "text"]))
    return pa.Table.from_batches(batches)
