"""The rows a data set needs, once, in its order, as one memory-mapped array on the local disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from llmembed.contract import Usage
from llmembed.embeddings.folder import ASIDE, Folder
from llmembed.embeddings.keys import Keys, Rows, to_bytes
from llmembed.embeddings.parts import Part
from llmembed.embeddings.store import CACHE_VARIABLE, Ledger, Store, ahead
from llmembed.metering.disk import reserve, room_for

_FORMAT = 1
ADVICE = f"free some, or name another place by --files, beside a remote one by {CACHE_VARIABLE}"


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """``vectors`` float16 or float32 (N, R, D), memory-mapped; ``tokens``, ``full_tokens`` (N,).

    ``usage`` is what embedding the distinct rows took whenever that was: each part's usage, shared
    out by tokens. ``padding``: share of the computed tokens that were padding.
    """

    vectors: npt.NDArray[Any]
    tokens: npt.NDArray[np.int64]
    full_tokens: npt.NDArray[np.int64]
    usage: Usage
    padding: float
    path: Path


class DamagedPartsError(Exception):
    """Some parts were damaged or gone and were set aside; ``names`` says which."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


def digest_of(keys: Keys) -> str:
    """Names a sequence of keys (N, 2): same texts, same order, same digest."""
    return blake2b(to_bytes(keys), digest_size=16, person=b"gathered").hexdigest()


def empty(store: Store) -> Gathered:
    """The rows of no texts."""
    none = np.zeros(0, dtype=np.int64)
    shape = (0, len(store.spec.reads), store.spec.width)
    return Gathered(
        vectors=np.zeros(shape, dtype=np.float16),
        tokens=none,
        full_tokens=none,
        usage=Usage(),
        padding=0.0,
        path=store.gathered_folder(),
    )


def load(store: Store, digest: str) -> Gathered | None:
    """What was gathered before under ``digest``, if it is complete."""
    return _map(store.gathered_folder() / digest)


def _map(folder: Path) -> Gathered | None:
    try:
        facts = json.loads((folder / "gathered.json").read_text(encoding="utf-8"))
        if facts["format"] != _FORMAT:
            return None
        return Gathered(
            vectors=np.load(folder / "vectors.npy", mmap_mode="r"),
            tokens=np.load(folder / "tokens.npy"),
            full_tokens=np.load(folder / "full_tokens.npy"),
            usage=Usage.from_json(facts["usage"]),
            padding=facts["padding"],
            path=folder / "vectors.npy",
        )
    except (FileNotFoundError, ValueError, KeyError, EOFError):
        return None


def gather(store: Store, ledger: Ledger, place: Rows, digest: str, *, keep: bool) -> Gathered:
    """Write the rows of N texts in their order, part by part, and map them.

    ``place`` (N,) says which of the ledger's keys each text has; none may be missing. The folder
    appears whole, under ``digest``; without ``keep`` it never does: it is mapped and removed, and
    the space is freed with the array. Raises ``DamagedPartsError``, ``StoreError`` where the disk
    has no room for it.
    """
    root = store.gathered_folder()
    root.mkdir(parents=True, exist_ok=True)
    Folder(str(root)).sweep()
    with _aside(root) as aside:
        _write(store, ledger, place, aside)
        if keep:
            _put(aside, root / digest)
        gathered = (_map(root / digest) if keep else None) or _map(aside)
    assert gathered is not None, f"{aside} was just written"
    return gathered


def _put(aside: Path, target: Path) -> None:
    """Rename ``aside``, unless another run gathered the same. An incomplete or foreign folder makes
    way; runs take turns, so that none removes what another has just put there."""
    with FileLock(target.with_suffix(".lock")):
        if _map(target) is not None:
            return
        shutil.rmtree(target, ignore_errors=True)
        with suppress(OSError):
            aside.rename(target)


@contextmanager
def _aside(root: Path) -> Iterator[Path]:
    aside = Path(mkdtemp(prefix=ASIDE, dir=root))
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write(store: Store, ledger: Ledger, place: Rows, folder: Path) -> None:
    reads, width = len(store.spec.reads), store.spec.width
    parts = ledger.part[place]
    assert (parts >= 0).all(), "rows were to be embedded before they are gathered"
    used = np.unique(parts)
    kind = np.float32 if any(int(number) in ledger.wide for number in used) else np.float16
    shape = (len(place), reads, width)
    wanted = gathered_bytes(*shape, np.dtype(kind).itemsize)
    with room_for(folder, wanted, f"gathering {len(place):,} texts", advice=ADVICE):
        _fill(store, ledger, place, folder, kind)


def gathered_bytes(rows: int, reads: int, width: int, size: int = 2) -> int:
    """What gathering takes on the disk: vectors of ``size`` bytes a value, two counts a text."""
    return rows * reads * width * size + rows * 16 + 4096


def _fill(store: Store, ledger: Ledger, place: Rows, folder: Path, kind: type) -> None:
    reads, width = len(store.spec.reads), store.spec.width
    parts = ledger.part[place]
    used = np.unique(parts)
    vectors = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype=kind, shape=(len(place), reads, width)
    )
    with (folder / "vectors.npy").open("r+b") as file:
        reserve(file, (folder / "vectors.npy").stat().st_size)
    tokens = np.zeros(len(place), dtype=np.int64)
    full = np.zeros(len(place), dtype=np.int64)
    order = np.argsort(parts, kind="stable")
    bounds = [*np.searchsorted(parts[order], used, side="left").tolist(), len(place)]
    usage, read_tokens, padded_tokens = Usage(), 0.0, 0.0
    lost: list[str] = []
    names = [ledger.names[int(number)] for number in used]
    for i, (name, got) in enumerate(ahead(names, store.read)):
        if not isinstance(got, Part):
            store.set_aside(name)
            ledger.forget(name)
            lost.append(name)
            continue
        rows = order[bounds[i] : bounds[i + 1]]
        source = ledger.row[place[rows]]
        vectors[rows] = got.vectors[source].reshape(-1, reads, width)
        tokens[rows] = got.tokens[source]
        full[rows] = got.full_tokens[source]
        share = _share(got, source)
        usage += got.usage.scaled(share)
        read_tokens += share * float(got.tokens.sum())
        padded_tokens += share * got.padding
    if lost:
        raise DamagedPartsError(lost)
    vectors.flush()
    np.save(folder / "tokens.npy", tokens)
    np.save(folder / "full_tokens.npy", full)
    computed = read_tokens + padded_tokens
    facts = {
        "format": _FORMAT,
        "usage": usage.to_json(),
        "padding": padded_tokens / computed if computed else 0.0,
    }
    (folder / "gathered.json").write_text(json.dumps(facts), encoding="utf-8")


def _share(part: Part, source: npt.NDArray[np.int32]) -> float:
    """The part of a part's tokens that these of its rows, each counted once, stand for."""
    rows = np.unique(source)
    total = int(part.tokens.sum())
    return float(part.tokens[rows].sum()) / total if total else len(rows) / len(part.tokens)
