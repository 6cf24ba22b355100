"""What runs in the workers: tokenise; then extract, write one part, and answer with a receipt.

Vectors never travel through the cluster: the worker that computed them writes them to the store.
"""

from __future__ import annotations

import json
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
TOKENISING = "tokenising"


def stages(files: str, spec: BackboneSpec, *, rows: int) -> list[Stage]:
    """Tables of ``key`` and ``text`` -> one part written per table -> a receipt of its rows."""
    return [
        Stage(make=Tokenise(spec), rows=rows),
        Stage(make=Extract(files, spec), rows=rows, model=True),
    ]


@dataclass(frozen=True)
class Tokenise:
    """``key``, ``text`` -> ``key``, the columns of ``TokenisedBatch``, and ``tokenising``: what
    it took, as JSON in the first row."""

    spec: BackboneSpec

    def __call__(self) -> Work:
        from llmembed.backbones import Tokeniser
        from llmembed.metering import Meter

        tokeniser = Tokeniser(self.spec)

        def work(table: pa.Table) -> pa.Table:
            with Meter() as meter:
                batch = tokeniser(table.column("text").to_pylist())
                columns = {"key": table.column("key"), **batch.to_arrow()}
            took = [json.dumps(meter.usage.to_json()), *[None] * (len(batch) - 1)]
            return pa.table({**columns, TOKENISING: pa.array(took[: len(batch)], pa.string())})

        return work


@dataclass(frozen=True)
class Extract:
    """Tokenised rows -> a part in the store -> ``key`` and ``tokens`` of what is now stored, and
    ``began`` and ``ended``, the worker's clock in seconds since 1970."""

    files: str
    spec: BackboneSpec

    def __call__(self) -> Work:
        from llmembed.backbones import Backbone, TokenisedBatch
        from llmembed.metering import Meter

        backbone = Backbone(self.spec)
        store = Store(self.files, self.spec)

        def work(table: pa.Table) -> pa.Table:
            began = time.time()
            batch = TokenisedBatch.from_arrow(table)
            before = (backbone.work.tokens, backbone.work.positions)
            with Meter(tokens=int(batch.kept.sum())) as meter:
                vectors = backbone.embed(batch)
            kept = set_aside(vectors, batch.kept, self.spec.label)
            usage = sum(_tokenising(table), start=meter.usage)
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


def _tokenising(table: pa.Table) -> Iterator[Usage]:
    for took in table.column(TOKENISING).drop_null().to_pylist():
        yield Usage.from_json(json.loads(took))
