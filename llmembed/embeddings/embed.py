"""Texts -> their embeddings, computing only what the store does not hold."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmembed.contract import Runtime, Usage
from llmembed.embeddings.blocks import table_of
from llmembed.embeddings.gather import (
    ADVICE,
    DamagedPartsError,
    Gathered,
    digest_of,
    empty,
    gather,
    gathered_bytes,
    load,
)
from llmembed.embeddings.keys import Keys, Rows, distinct, keys_of, to_bytes
from llmembed.embeddings.stages import loading_of, stages
from llmembed.embeddings.store import Ledger, Store
from llmembed.embeddings.words import SAMPLE, check_words
from llmembed.errors import ModelError, StoreError
from llmembed.metering.disk import check_room

if TYPE_CHECKING:
    from llmembed.backbones import BackboneSpec

logger = logging.getLogger(__name__)

PART_ROWS = 1024
WAVE_ROWS = 1_000_000
"""Rows handed to the runtime at once: what waits there as text stays bounded."""
SHARD_ROWS = 10_000_000
"""Rows sorted at once. Finding keys among the sorted ones needs no more memory than they do."""
_TRIES = 3
MAX_UNREAD = 0.01
"""The share of texts without a finite vector up to which they are set aside."""


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The embeddings of N texts, in their order.

    ``vectors``: float16 or float32 (N, R, D), memory-mapped from ``path``. ``tokens``: int64
    (N,), those that the model read. ``usage``: what embedding the distinct texts took, now or
    earlier; ``loading``: what making the model took in this call's workers, which is not in it.
    ``computed`` + ``reused`` + ``duplicates`` = N: texts embedded by this call, found in
    the store, and equal to an earlier one of these texts. ``cut_texts``, ``cut_tokens``: shares
    that the model did not read. ``padding``: share of computed tokens that were padding.
    ``seconds``: wall-clock time of this call's embedding, 0 where nothing was missing;
    ``working_seconds``: from the first worker's first row to the last worker's last, without
    starting a cluster or loading models. Rates are over the latter.
    ``damaged``: parts set aside because their checksum no longer held. ``unread``: rows whose
    vector was not finite, or that hold a token the model has no embedding for; their vectors and
    ``tokens`` are 0.
    """

    vectors: npt.NDArray[Any]
    tokens: npt.NDArray[np.int64]
    usage: Usage
    computed: int
    reused: int
    duplicates: int
    cut_texts: float
    cut_tokens: float
    padding: float
    path: Path | None
    seconds: float = 0.0
    working_seconds: float = 0.0
    computed_tokens: int = 0
    loading: Usage = field(default_factory=Usage)
    damaged: tuple[str, ...] = field(default=())
    unread: tuple[int, ...] = field(default=())

    @property
    def rows_per_second(self) -> float:
        """Of the rows this call computed; 0 where there were none."""
        return self.computed / self.working_seconds if self.working_seconds else 0.0

    @property
    def tokens_per_second(self) -> float:
        return self.computed_tokens / self.working_seconds if self.working_seconds else 0.0

    def summary(self) -> str:
        """What happened, in one or two sentences."""
        said = (
            f"{len(self.tokens)} texts: {self.computed} embedded, {self.reused} reused from the "
            f"store, {self.duplicates} duplicates; {self.cut_texts:.1%} of the texts cut "
            f"({self.cut_tokens:.1%} of the tokens), {self.padding:.1%} padding"
        )
        if self.computed:
            said += f"; {self.rows_per_second:.1f} rows/s, {self.tokens_per_second:.0f} tokens/s"
            said += f"; making the model took {self.loading.seconds:.1f} s apart from that"
        if self.unread:
            said += f"; {len(self.unread)} without a finite vector set aside as zeros"
        if self.damaged:
            said += f". Damaged parts set aside and embedded anew: {', '.join(self.damaged)}"
        return said


def embed(
    spec: BackboneSpec,
    texts: Sequence[str],
    runtime: Runtime,
    *,
    keep: bool = True,
    part_rows: int = PART_ROWS,
    wave_rows: int = WAVE_ROWS,
    shard_rows: int = SHARD_ROWS,
) -> Embedded:
    """The embeddings of ``texts`` under ``spec``, from the store below ``runtime.files``.

    Texts no part holds are embedded by ``runtime`` and stored first, in parts of at most
    ``part_rows`` rows. ``keep``: whether the gathered array stays on disk for the next call with
    the same texts (a sweep) or is freed with the result (a passing chunk of a large file).
    Texts without a finite vector are logged and stand as zeros. Raises ``ModelError`` where these
    are more than ``MAX_UNREAD`` of all, ``StoreError`` where the store was made with another spec
    or a disk has no room, ``WorkerError``.
    """
    store = Store(runtime.files, spec)
    store.open()
    keys = keys_of(texts)
    unique, first, place = distinct(keys, shard_rows=shard_rows)
    filling = _Filling(
        store=store,
        runtime=runtime,
        texts=texts,
        keys=keys,
        first=first,
        ledger=Ledger(keys=unique),
        part_rows=part_rows,
        wave_rows=wave_rows,
    )
    digest = digest_of(keys)
    found = (
        empty(store) if not len(keys) else load(store, digest) or filling.run(place, digest, keep)
    )
    full = int(found.full_tokens.sum())
    cut = found.tokens < found.full_tokens
    computed = int(filling.computed.sum())
    unread = np.flatnonzero((found.tokens == 0) & (found.full_tokens > 0))
    _tell_unread(spec, texts, keys, unread)
    return Embedded(
        vectors=found.vectors,
        tokens=found.tokens,
        usage=found.usage,
        computed=computed,
        reused=len(unique) - computed,
        duplicates=len(keys) - len(unique),
        cut_texts=float(cut.mean()) if len(cut) else 0.0,
        cut_tokens=1 - int(found.tokens.sum()) / full if full else 0.0,
        padding=found.padding,
        path=found.path if keep and len(keys) else None,
        seconds=filling.seconds,
        working_seconds=filling.working_seconds,
        computed_tokens=filling.tokens,
        loading=filling.loading,
        damaged=tuple(filling.damaged),
        unread=tuple(unread.tolist()),
    )


def _tell_unread(
    spec: BackboneSpec, texts: Sequence[str], keys: Keys, unread: npt.NDArray[np.int64]
) -> None:
    """Log texts that have no vector, or raise ``ModelError`` where they are too many."""
    if not len(unread):
        return
    first = int(unread[0])
    said = (
        f"{len(unread)} of {len(texts)} texts have no finite vector of {spec.label}, first row "
        f"{first}, which begins {texts[first][:40]!r} (key {to_bytes(keys[first]).hex()})"
    )
    advice = "leave such texts out, or set dtype to float32"
    if len(unread) > MAX_UNREAD * len(texts):
        raise ModelError(f"{said}, and at most {MAX_UNREAD:.0%} are set aside: {advice}")
    logger.warning("%s: they are set aside, as zeros; %s", said, advice)


@dataclass(kw_only=True)
class _Filling:
    """Brings what one call needs into the store and gathers it; remembers what that took."""

    store: Store
    runtime: Runtime
    texts: Sequence[str]
    keys: Keys
    first: Rows
    ledger: Ledger
    part_rows: int
    wave_rows: int
    computed: npt.NDArray[np.bool_] = field(init=False)
    tokens: int = 0
    seconds: float = 0.0
    working_seconds: float = 0.0
    loading: Usage = field(default_factory=Usage)
    damaged: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.computed = np.zeros(len(self.ledger.keys), dtype=np.bool_)

    def run(self, place: Rows, digest: str, keep: bool) -> Gathered:
        # A part found damaged while gathering leaves rows missing: embed those and gather again.
        for _ in range(_TRIES):
            self._look()
            self._compute()
            try:
                return gather(self.store, self.ledger, place, digest, keep=keep)
            except DamagedPartsError as error:
                self._report(error.names)
        raise StoreError(
            f"parts of {self.store.folder.address} were damaged again right after they were "
            f"written ({', '.join(self.damaged[-3:])}): check the disk"
        )

    def _look(self) -> None:
        self._report(self.ledger.look(self.store))

    def _compute(self) -> None:
        missing = self.ledger.missing
        if not len(missing):
            return
        spec = self.store.spec
        self._check_room(len(missing))
        check_words(spec, [self.texts[row] for row in self.first[missing[:SAMPLE]]])
        work = stages(self.runtime.files, spec, rows=self.part_rows)
        limit = None if spec.long_texts == "windows" else spec.max_tokens
        for start in range(0, len(missing), self.wave_rows):
            wave = missing[start : start + self.wave_rows]
            began = time.perf_counter()
            table = table_of(
                self.keys, self.texts, self.first[wave], max_tokens=limit, rows=self.part_rows
            )
            first, last = math.inf, -math.inf
            for receipt in self.runtime.map_texts(table, work, label=f"embed {spec.label}"):
                self.loading += loading_of(receipt)
                self.tokens += int(np.sum(receipt.column("tokens").to_numpy()))
                first = min(first, receipt.column("began")[0].as_py())
                last = max(last, receipt.column("ended")[0].as_py())
            self.seconds += time.perf_counter() - began
            self.working_seconds += max(0.0, last - first)
            self.computed[wave] = True
        self._look()
        lost = len(self.ledger.missing)
        if lost:
            raise StoreError(
                f"{lost} texts were embedded but {self.store.folder.address} does not hold them; "
                "do all workers see this folder? On several machines it must be shared or s3://"
            )

    def _check_room(self, missing: int) -> None:
        """Before hours of work, not after: for the parts where they lie on this machine, and for
        what is gathered, half precision taken for granted."""
        row = len(self.store.spec.reads), self.store.spec.width
        folder = self.store.gathered_folder()
        wanted = gathered_bytes(len(self.keys), *row)
        if self.store.folder.local is not None:
            wanted += gathered_bytes(missing, *row)
        check_room(folder, wanted, f"embedding {len(self.keys):,} texts", advice=ADVICE)

    def _report(self, damaged: Sequence[str]) -> None:
        for name in damaged:
            self.damaged.append(name)
            logger.warning(
                "%s/%s is damaged: it was set aside and its rows are embedded anew",
                self.store.folder.address,
                name,
            )
