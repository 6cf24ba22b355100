"""The parts of one spec, and which keys they hold.

::

    FILES/store/LABEL@REVISION/FINGERPRINT/
        spec.json                      what every vector here is
        part-ROWS-SHA256.parquet       complete or absent, never rewritten
        damaged/                       parts whose checksum no longer held
        gathered/                      rows of one data set, ready to be memory-mapped
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from llmembed.embeddings.folder import Folder
from llmembed.embeddings.keys import Keys, find
from llmembed.embeddings.parts import DamagedPartError, Head, Part, decode, encode, head, is_part
from llmembed.errors import StoreError

if TYPE_CHECKING:
    from llmembed.backbones import BackboneSpec

CACHE_VARIABLE = "LLMEMBED_CACHE_DIR"
_AHEAD = 8
_DAMAGED = "damaged"
_SPEC = "spec.json"
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Store:
    """The embeddings of one spec below ``files``, a folder or an ``s3://`` address."""

    def __init__(self, files: str | Path, spec: BackboneSpec) -> None:
        self.spec = spec
        name = f"{_plain(spec.label)}@{_plain(spec.revision)}"
        self.folder = Folder(str(files)).child("store", name, spec.fingerprint())

    def open(self) -> None:
        """Write ``spec.json`` or compare it. Raises ``StoreError`` where it names another spec."""
        asked = {k: v for k, v in self.spec.to_json().items() if k != "location"}
        try:
            found = json.loads(self.folder.read(_SPEC))
        except FileNotFoundError:
            if any(is_part(name) for name in self.folder.names()):
                raise StoreError(
                    f"{self.folder.address} holds embeddings but no {_SPEC}, so what they are "
                    "is unknown; put the file back or move the folder away"
                ) from None
            self.folder.write(_SPEC, json.dumps(self.spec.to_json(), indent=1).encode())
            return
        except ValueError as error:
            raise StoreError(f"{self.folder.address}/{_SPEC} is not JSON: {error}") from error
        self.folder.sweep()
        found.pop("location", None)
        # Compared as JSON: a tuple of the spec is a list in the file.
        asked = json.loads(json.dumps(asked))
        differing = sorted(
            key for key in {*asked, *found} if asked.get(key) != found.get(key) or key not in found
        )
        if differing:
            key = differing[0]
            raise StoreError(
                f"the store {self.folder.address} was made with another spec: {key} is "
                f"{found.get(key)!r} there and {asked.get(key)!r} here"
                + (f" (also {', '.join(differing[1:])})" if differing[1:] else "")
            )

    def parts(self) -> list[str]:
        """The names of all complete parts, sorted."""
        return [name for name in self.folder.names() if is_part(name)]

    def add(self, part: Part) -> str:
        """Write ``part``; returns its name."""
        name, content = encode(part)
        self.folder.write(name, content)
        return name

    def head(self, name: str) -> Head:
        """Raises ``DamagedPartError``, ``FileNotFoundError``, ``StoreError``."""
        with self._reading(name), self.folder.open(name) as file:
            return head(name, file)

    def read(self, name: str) -> Part:
        """Raises ``DamagedPartError``, ``FileNotFoundError``, ``StoreError``."""
        with self._reading(name):
            return decode(name, self.folder.read(name))

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(f"{self.folder.address}/{name} can't be read: {error}") from error

    def set_aside(self, name: str) -> None:
        """Move a damaged part out of the way, so that its rows count as missing."""
        self.folder.move(name, _DAMAGED)

    def gathered_folder(self) -> Path:
        """Where gathered arrays lie: beside the parts, for a remote store in a local cache."""
        if self.folder.local is not None:
            return self.folder.local / "gathered"
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        cache = Path(os.environ.get(CACHE_VARIABLE) or Path(base) / "llmembed")
        place = hashlib.sha256(self.folder.address.encode()).hexdigest()[:16]
        return cache / "gathered" / place


@dataclass(kw_only=True)
class Ledger:
    """Which part and which of its rows holds each of U wanted keys (sorted, distinct).

    It grows with the keys that are wanted, not with the store: parts are looked through one after
    another and only what was found is kept. A key in several parts counts in the first seen.
    """

    keys: Keys
    names: list[str] = field(default_factory=list)
    wide: set[int] = field(default_factory=set)
    part: npt.NDArray[np.int32] = field(init=False)
    row: npt.NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        # Each half of the keys in one piece: it is searched for every part.
        self.keys = np.asfortranarray(self.keys)
        self.part = np.full(len(self.keys), -1, dtype=np.int32)
        self.row = np.zeros(len(self.keys), dtype=np.int32)

    @property
    def missing(self) -> npt.NDArray[np.int64]:
        """Places of the keys that no part holds."""
        return np.flatnonzero(self.part < 0)

    def look(self, store: Store) -> list[str]:
        """Take in the parts not seen yet; returns the damaged ones, which were set aside."""
        seen = set(self.names)
        damaged: list[str] = []
        new = [name for name in store.parts() if name not in seen]
        for name, got in ahead(new, store.head):
            if isinstance(got, DamagedPartError):
                store.set_aside(name)
                damaged.append(name)
            elif isinstance(got, Head):
                self._add(name, got)
        return damaged

    def forget(self, name: str) -> None:
        """A part is gone: what it held is missing."""
        self.part[self.part == self.names.index(name)] = -1

    def _add(self, name: str, got: Head) -> None:
        number = len(self.names)
        self.names.append(name)
        if got.wide:
            self.wide.add(number)
        places = find(got.keys, self.keys)
        rows = np.flatnonzero(places >= 0)
        rows = rows[self.part[places[rows]] < 0]
        self.part[places[rows]] = number
        self.row[places[rows]] = rows


def ahead(
    items: Iterable[_Item], function: Callable[[_Item], _Result]
) -> Iterator[tuple[_Item, _Result | DamagedPartError | None]]:
    """``function`` of each item, in order, a few items ahead in threads (reading waits for disks
    and networks). A damaged part comes as its error, one that is gone as None."""

    def guarded(item: _Item) -> _Result | DamagedPartError | None:
        try:
            return function(item)
        except DamagedPartError as error:
            return error
        except FileNotFoundError:
            return None

    with ThreadPoolExecutor(_AHEAD) as pool:
        waiting: deque[tuple[_Item, Future[_Result | DamagedPartError | None]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(guarded, item)))
            if len(waiting) >= _AHEAD:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def _plain(name: str) -> str:
    """A name that is safe as one folder of a path or an s3 key."""
    return re.sub(r"[^\w.-]+", "-", name) or "unnamed"
