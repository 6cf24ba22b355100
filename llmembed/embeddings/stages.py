"""What runs in the workers: tokenise; then extract, write one part, and answer with a receipt.

Vectors never travel through the cluster: the worker that computed them writes them to the store.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from llmembed.contract import Stage, Usage
from llmembed.embeddings.keys import from_bytes
from llmembed.embeddings.parts import Part
from llmembed.embeddings.store import Store
from llmembed.errors import ModelError

if TYPE_CHECKING:
    from llmembed.backbones import BackboneSpec

Work = Callable[[pa.Table], pa.Table]
TOKENISING, LOADING = "tokenising", "loading"


def stages(files: str, spec: BackboneSpec, *, rows: int) -> list[Stage]:
    """Tables of ``key`` and ``text`` -> one part written per table -> a receipt of its rows."""
    return [
        Stage(make=Tokenise(spec), rows=rows),
        Stage(make=Extract(files, spec), rows=rows, model=True),
    ]


@dataclass(frozen=True)
class Tokenise:
    """``key``, ``text`` -> ``key``, the columns of ``TokenisedBatch``, and ``tokenising``: what
    it took, in which process and from when on, as JSON in the first row."""

    spec: BackboneSpec

    def __call__(self) -> Work:
        from llmembed.backbones import Tokeniser
        from llmembed.metering import Meter

        tokeniser = Tokeniser(self.spec)

        def work(table: pa.Table) -> pa.Table:
            began = time.monotonic()
            with Meter() as meter:
                batch = tokeniser(table.column("text").to_pylist())
                columns = {"key": table.column("key"), **batch.to_arrow()}
            told = {"usage": meter.usage.to_json(), "process": _process(), "began": began}
            return pa.table({**columns, TOKENISING: _first(json.dumps(told), len(batch))})

        return work


@dataclass(frozen=True)
class Extract:
    """Tokenised rows -> a part in the store -> ``key`` and ``tokens`` of what is now stored,
    ``began`` and ``ended``, the worker's clock in seconds since 1970, and ``loading``: what making
    the model took, as JSON in the first row of a worker's first receipt.

    A part's usage goes from the end of the worker's part before it, or from its own first row, to
    its last vector: waiting for rows and writing parts are in it, making the model is not.
    """

    files: str
    spec: BackboneSpec

    def __call__(self) -> Work:
        from llmembed.backbones import Backbone, TokenisedBatch
        from llmembed.metering import Meter

        with Meter() as loading:
            backbone = Backbone(self.spec)
            store = Store(self.files, self.spec)
        meter = Meter()
        opened: float | None = None

        def work(table: pa.Table) -> pa.Table:
            nonlocal opened
            began, first = time.time(), opened is None
            if opened is None:
                opened = time.monotonic()
                meter.__enter__()
            batch = TokenisedBatch.from_arrow(table)
            before = (backbone.work.tokens, backbone.work.positions)
            vectors = backbone.embed(batch)
            kept = set_aside(vectors, batch.kept, self.spec.label)
            meter.count(tokens=int(batch.kept.sum()))
            usage = sum(_tokenising(table, opened), start=meter.lap())
            tokens = backbone.work.tokens - before[0]
            positions = backbone.work.positions - before[1]
            store.add(
                Part(
                    keys=from_bytes(b"".join(table.column("key").to_pylist())),
                    tokens=kept.astype(np.int32),
                    full_tokens=batch.full.astype(np.int32),
                    vectors=vectors.reshape(len(vectors), -1),
                    usage=usage,
                    padding=positions - tokens,
                )
            )
            return pa.table(
                {
                    "key": table.column("key"),
                    "tokens": pa.array(kept),
                    "began": pa.repeat(began, len(batch)),
                    "ended": pa.repeat(time.time(), len(batch)),
                    LOADING: _first(
                        json.dumps(loading.usage.to_json()) if first else None, len(batch)
                    ),
                }
            )

        return work


def set_aside(
    vectors: npt.NDArray[np.float32], kept: npt.NDArray[np.int64], label: str
) -> npt.NDArray[np.int64]:
    """``kept`` with 0 for each text whose vectors (N, R, D) are not finite, which become 0 in
    place: nothing was read of such a text, and a part says so by its tokens.

    Raises ``ModelError`` where that is every one of several texts: the model or its dtype is at
    fault, not a text.
    """
    flat = vectors.reshape(len(vectors), -1)
    unread = np.logical_not(np.isfinite(flat).all(axis=1))
    if not unread.any():
        return kept
    if len(unread) > 1 and unread.all():
        raise ModelError(
            f"the backbone {label} gave vectors that are not finite (NaN or infinite) for all of "
            f"{len(unread)} texts; try another dtype, for example float32"
        )
    vectors[unread] = 0
    return np.where(unread, 0, kept)


def loading_of(receipt: pa.Table) -> Usage:
    """What the worker's model took to be made, in its first receipt; nothing in others."""
    told = receipt.column(LOADING).drop_null().to_pylist()
    return sum((Usage.from_json(json.loads(each)) for each in told), Usage())


def _tokenising(table: pa.Table, opened: float) -> Iterator[Usage]:
    """What tokenising these rows took, where the window that this process ``opened`` (seconds of
    its clock) does not hold it already."""
    for told in table.column(TOKENISING).drop_null().to_pylist():
        took = json.loads(told)
        if took["process"] != _process() or took["began"] < opened:
            yield Usage.from_json(took["usage"])


def _first(value: str | None, rows: int) -> pa.Array:
    """A column with ``value`` in the first of its rows and nothing in the others."""
    return pa.array([value, *[None] * (rows - 1)][:rows], pa.string())


def _process() -> str:
    return f"{platform.node()}:{os.getpid()}"
