"""Corrected labels, kept as JSON lines for ``data.feedback`` of ``fit`` and ``compare``.

::

    FILES/feedback/MODEL/REPLICA-20270131T120000-1a2b3c4d-00000.jsonl

Each replica writes files of its own, so none waits for another. In an object store, which can't
append, each correction is one small object instead.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from llmembed.contract import UNKNOWN, Task
from llmembed.embeddings.folder import Folder
from serve.errors import FullError, RequestError, UnavailableError

logger = logging.getLogger("llmembed.serve")
FOLDER = "feedback"
_SHOWN = 100
_NEW = 16
"""New classes that one correction of several labels may bring."""
_TAG = re.compile(r"O|[BI]-\S+")


def checked_label(task: Task, text: str, label: str | list[str], *, new: bool) -> str | list[str]:
    """The label as it is stored: one class for ``single``, a list for the other kinds, for
    ``tokens`` one tag a word. ``new``: it may be a class that the model does not know.

    Raises ``RequestError``.
    """
    if task.kind == "single":
        if not isinstance(label, str):
            raise RequestError(f"task {task.name!r} takes one label, not a list")
        names = [label]
    else:
        names = [label] if isinstance(label, str) else list(label)
    if task.kind == "tokens" and len(names) != len(text.split()):
        raise RequestError(
            f"task {task.name!r} takes one tag for each of the {len(text.split())} words, "
            f"not {len(names)}"
        )
    if task.kind == "multi" and len(names) > len(task.classes) + _NEW:
        raise RequestError(
            f"task {task.name!r} has {len(task.classes)} classes; {len(names)} labels are too many"
        )
    known = set(task.classes)
    for name in names:
        if name in known:
            continue
        if not new:
            shown = ", ".join(task.classes[:_SHOWN])
            more = len(task.classes) - _SHOWN
            raise RequestError(
                f"task {task.name!r} has no class {name[:80]!r}; known are {shown}"
                + (f" and {more} more" if more > 0 else "")
                + "; send new_label: true to add one"
            )
        if not name.strip() or name != name.strip():
            raise RequestError("a new label can't be empty or begin or end with white space")
        if not name.isprintable():
            raise RequestError("a new label is one line of printable characters")
        if name.lower() == UNKNOWN:
            raise RequestError(
                f"{UNKNOWN!r} is the word of an answer that abstains: call a new label otherwise"
            )
        if task.kind == "tokens" and not _TAG.fullmatch(name):
            raise RequestError(f"a new tag is O, B-… or I-…, not {name[:80]!r}")
    return names[0] if task.kind == "single" else names


@dataclass
class FeedbackFiles:
    """What one replica was told. ``most_bytes``: of a file before the next one is begun;
    ``total_bytes``: of all it keeps from its start on."""

    files: str
    replica: str
    most_bytes: int
    total_bytes: int = 2**30
    _kept: int = 0
    _open: dict[str, _Lines] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex[:8]}"
        self._stem = f"{_plain(self.replica)}-{stamp}"

    def folder(self, model: str) -> Folder:
        return Folder(self.files).child(FOLDER, _plain(model))

    def add(self, model: str, row: Mapping[str, Any]) -> None:
        """Keep one row for good before returning; blocking. Raises ``UnavailableError``, or
        ``FullError`` once ``total_bytes`` are kept."""
        record = {**row, "time": datetime.now(UTC).isoformat(timespec="microseconds")}
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        folder = self.folder(model)
        try:
            with self._lock:
                if self._kept + len(line) > self.total_bytes:
                    raise FullError(
                        f"this replica keeps {self._kept:,} bytes of feedback and may keep "
                        f"{self.total_bytes:,}; more is kept after feedback_total_bytes is raised "
                        "or it starts anew"
                    )
                if folder.local is None:
                    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{uuid4().hex}"
                    folder.write(f"{_plain(self.replica)}-{stamp}.jsonl", line)
                else:
                    lines = self._open.setdefault(model, _Lines(folder.local, self._stem))
                    lines.append(line, self.most_bytes)
                self._kept += len(line)
        except FullError:
            raise
        except Exception as error:  # a full disk, a store away: of many kinds
            logger.error("feedback could not be stored: %s", type(error).__name__)
            raise UnavailableError("the feedback can't be stored now; send it again") from error


@dataclass
class _Lines:
    folder: Path
    stem: str
    number: int = 0
    size: int = 0

    def append(self, line: bytes, most_bytes: int) -> None:
        """In one write, so that a reader or a kill never meets half a line of two."""
        if self.size and self.size + len(line) > most_bytes:
            self.number, self.size = self.number + 1, 0
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.stem}-{self.number:05d}.jsonl"
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            written = os.write(handle, line)
            if written < len(line):
                os.ftruncate(handle, os.fstat(handle).st_size - written)
                raise OSError(f"{written} of {len(line)} bytes written")
            os.fsync(handle)
        finally:
            os.close(handle)
        self.size += len(line)


def _plain(name: str) -> str:
    """A name that is one folder's or file's, whatever a model is called."""
    return re.sub(r"[^\w.+-]+", "-", name).lstrip(".") or "unnamed"
