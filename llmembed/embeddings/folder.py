"""Files in a local folder or below an ``s3://`` address, each complete or absent."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

from llmembed.errors import StoreError
from llmembed.metering.disk import room_for

if TYPE_CHECKING:
    import pyarrow.fs as pafs

ABANDONED_SECONDS = 3600.0
"""A file still written aside after this long belongs to a process that was killed."""

ASIDE = ".writing-"
"""How the names of what is not complete begin."""


@dataclass(frozen=True)
class Folder:
    """One folder; ``address`` is a path or ``s3://bucket/prefix``. Picklable, opened when used.

    An s3 address may carry pyarrow's options, as in ``s3://b/p?endpoint_override=HOST:PORT``.
    """

    address: str

    @property
    def local(self) -> Path | None:
        """The folder's path, or None where it is not on this machine's disk."""
        return None if "://" in self.address else Path(self.address)

    def child(self, *names: str) -> Folder:
        base, mark, options = self.address.partition("?")
        return Folder("/".join([base.rstrip("/"), *names]) + mark + options)

    def file(self, name: str) -> str:
        """The address of a file in this folder."""
        return self.child(name).address

    @cached_property
    def remote(self) -> tuple[pafs.FileSystem, str]:
        """The file system of an address with a scheme, and the folder's path in it. Raises
        ``StoreError``."""
        import pyarrow as pa
        import pyarrow.fs as pafs

        address = self.address
        if address.startswith("s3://"):
            # Small files then go up as one PUT instead of an upload of several parts.
            address += ("&" if "?" in address else "?") + "allow_delayed_open=true"
        try:
            system, path = pafs.FileSystem.from_uri(address)
        except (pa.ArrowInvalid, OSError) as error:
            raise StoreError(f"can't open {self.address}: {error}") from error
        return system, path.rstrip("/")

    def __getstate__(self) -> dict[str, str]:
        return {"address": self.address}

    def names(self) -> list[str]:
        """The files in this folder, sorted; empty where it does not exist."""
        if self.local is not None:
            if not self.local.is_dir():
                return []
            with os.scandir(self.local) as entries:
                return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_file())
        import pyarrow.fs as pafs

        system, path = self.remote
        chosen = pafs.FileSelector(path, allow_not_found=True)
        return sorted(i.base_name for i in system.get_file_info(chosen) if i.is_file)

    def read(self, name: str) -> bytes:
        """Raises ``FileNotFoundError`` where there is no such file."""
        with self.open(name) as file:
            return bytes(file.read())

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes] | Any]:
        """A file to read from at any place."""
        if self.local is not None:
            with (self.local / name).open("rb") as file:
                yield file
            return
        system, path = self.remote
        with system.open_input_file(f"{path}/{name}") as remote:
            yield remote

    def write(self, name: str, content: bytes) -> None:
        """Leaves the whole file or none, whenever the process is killed: written aside, synced
        and renamed on disk; one upload on s3, where nothing is seen before it is complete. Raises
        ``StoreError`` where the disk is full."""
        if self.local is None:
            system, path = self.remote
            system.create_dir(path, recursive=True)
            with system.open_output_stream(f"{path}/{name}") as stream:
                stream.write(content)
            return
        self.local.mkdir(parents=True, exist_ok=True)
        aside = self.local / f"{ASIDE}{name}-{uuid4().hex[:12]}"
        try:
            with room_for(self.local, len(content), f"the file {name}"):
                with aside.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                aside.replace(self.local / name)
        finally:
            aside.unlink(missing_ok=True)
        _sync(self.local)

    def put(self, source: Path) -> None:
        """Copy all files below ``source`` to here, in place of those of the same names."""
        for path in sorted(p for p in source.rglob("*") if p.is_file()):
            inner = path.parent.relative_to(source).parts
            place = self.child(*inner) if inner else self
            if place.local is not None:
                place.local.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, place.local / path.name)
                continue
            system, folder = place.remote
            with path.open("rb") as file, system.open_output_stream(f"{folder}/{path.name}") as to:
                shutil.copyfileobj(file, to, 1 << 24)

    def move(self, name: str, subfolder: str) -> None:
        """Move a file into ``subfolder``; does nothing where another process was faster."""
        if self.local is not None:
            (self.local / subfolder).mkdir(exist_ok=True)
            try:
                (self.local / name).replace(self.local / subfolder / name)
            except FileNotFoundError:
                return
            return
        import pyarrow.fs as pafs

        system, path = self.remote
        try:
            system.move(f"{path}/{name}", f"{path}/{subfolder}/{name}")
        except OSError as error:
            # On s3 a copy and a delete: who comes second meets an error of some kind.
            if system.get_file_info(f"{path}/{name}").type == pafs.FileType.NotFound:
                return
            raise StoreError(f"can't move {self.address}/{name}: {error}") from error

    def delete(self) -> None:
        """The folder with all in it; does nothing where there is none."""
        if self.local is not None:
            shutil.rmtree(self.local, ignore_errors=True)
            return
        import pyarrow.fs as pafs

        system, path = self.remote
        try:
            if system.get_file_info(path).type != pafs.FileType.NotFound:
                system.delete_dir(path)
        except OSError as error:
            raise StoreError(f"can't delete {self.address}: {error}") from error

    def sweep(self) -> None:
        """Remove what processes killed long ago were writing aside, files and folders."""
        if self.local is None or not self.local.is_dir():
            return
        for aside in self.local.glob(f"{ASIDE}*"):
            try:
                if time.time() - _last_written(aside) > ABANDONED_SECONDS:
                    shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
            except FileNotFoundError:
                continue


def _last_written(aside: Path) -> float:
    """Seconds since 1970. A folder's own time tells only of files made in it."""
    inside = [path.stat().st_mtime for path in aside.iterdir()] if aside.is_dir() else []
    return max([aside.stat().st_mtime, *inside])


def _sync(folder: Path) -> None:
    """Make a rename in ``folder`` last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
