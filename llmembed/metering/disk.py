"""Whether a disk has room for what is about to be written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from llmembed.errors import StoreError

_FULL = {errno.ENOSPC, errno.EDQUOT}
# What safetensors and torch say of it, which raise errors of their own.
_FULL_WORDS = ("no space left", "disk quota exceeded", "inline_container", "pytorchstreamwriter")


def check_room(folder: Path, wanted: int, what: str, *, advice: str = "free some") -> None:
    """Raise ``StoreError`` where the disk that ``folder`` is, or will be, on has less than
    ``wanted`` bytes free. ``what`` is written, ``advice`` says what would help."""
    free = free_bytes(folder)
    if wanted > free:
        raise _full(folder, wanted, free, what, advice)


@contextmanager
def room_for(folder: Path, wanted: int, what: str, *, advice: str = "free some") -> Iterator[None]:
    """``check_room``, and the same sentence where the disk is full all the same: others write too,
    and a quota is asked of nobody."""
    check_room(folder, wanted, what, advice=advice)
    try:
        yield
    except Exception as error:
        said = str(error).lower()
        if getattr(error, "errno", None) not in _FULL and not any(w in said for w in _FULL_WORDS):
            raise
        raise _full(folder, wanted, free_bytes(folder), what, advice) from error


def reserve(file: IO[bytes], size: int) -> None:
    """Take ``size`` bytes for ``file`` now: a sparse file that is written through a memory map ends
    the process (SIGBUS) where the disk is full. Raises ``OSError``."""
    if hasattr(os, "posix_fallocate") and size:
        os.posix_fallocate(file.fileno(), 0, size)


def free_bytes(folder: Path) -> int:
    """What this user may still write where ``folder`` is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _full(folder: Path, wanted: int, free: int, what: str, advice: str) -> StoreError:
    return StoreError(
        f"{what} takes {wanted:,} bytes in {folder}, whose disk has {free:,} bytes free: {advice}"
    )
