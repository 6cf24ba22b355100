"""Where rows come from: one file, a folder, a glob, here or in an object store.

Addresses with a scheme (``s3://bucket/key``) go through ``pyarrow.fs`` (which reads the usual
``AWS_*`` variables, ``AWS_ENDPOINT_URL`` among them), and through fsspec where pyarrow does not
know the scheme.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from llmembed.errors import DataError
from llmembed.texts.columns import listed

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs as pafs

Format = Literal["csv", "tsv", "jsonl", "parquet"]
FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")
SPLITS = {"train": "train", "valid": "valid", "validation": "valid", "dev": "valid", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One file; picklable, opened where it is read."""

    address: str
    format: Format

    def open_stream(self) -> pa.NativeFile:
        """Bytes from the start, decompressed where the suffix says so."""
        filesystem, path = filesystem_of(self.address)
        try:
            return filesystem.open_input_stream(path)
        except OSError as error:
            raise DataError(f"can't read {self.address}: {error}") from error

    def open_seekable(self) -> pa.NativeFile:
        filesystem, path = filesystem_of(self.address)
        try:
            return filesystem.open_input_file(path)
        except OSError as error:
            raise DataError(f"can't read {self.address}: {error}") from error


def is_remote(address: str) -> bool:
    return "://" in address


@cache
def _remote(root: str) -> pafs.FileSystem:
    import pyarrow as pa
    import pyarrow.fs as pafs

    try:
        return pafs.FileSystem.from_uri(root)[0]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass  # a scheme that pyarrow does not know: fsspec may
    except OSError as error:
        raise DataError(f"can't reach {root}: {error}") from error
    try:
        import fsspec

        scheme = root.partition("://")[0]
        return pafs.PyFileSystem(pafs.FSSpecHandler(fsspec.filesystem(scheme)))
    except (ImportError, ValueError) as error:
        raise DataError(f"can't reach {root}: {error}") from error


def filesystem_of(address: str) -> tuple[pafs.FileSystem, str]:
    """The file system of an address and the path within it."""
    import pyarrow.fs as pafs

    if not is_remote(address):
        return pafs.LocalFileSystem(), str(Path(address).expanduser())
    scheme, _, path = address.partition("://")
    bucket = path.partition("/")[0]
    return _remote(f"{scheme}://{bucket}"), path


def format_of(address: str) -> Format | None:
    """By suffix, a compression suffix set aside; None when it is no format of ours."""
    path = PurePosixPath(address)
    if path.suffix in COMPRESSED:
        path = path.with_suffix("")
    return FORMATS.get(path.suffix.lower())


def split_of(address: str) -> str | None:
    """``train``, ``valid`` or ``test`` when the file's name starts with a split's name."""
    stem = PurePosixPath(address).name.partition(".")[0].lower()
    return SPLITS.get(stem.partition("-")[0])


def expand(source: str | Path | Sequence[str | Path]) -> list[DataFile]:
    """The files of a source, sorted by name, local ones by their whole path: a worker may have
    another working directory. Hidden files (``.`` or ``_`` first) are passed over, and in a folder
    or a glob also files of other kinds. Raises ``DataError``."""
    if not isinstance(source, (str, Path)):
        return [file for part in source for file in expand(part)]
    address = str(source)
    is_glob = any(char in address for char in "*?[")
    if is_glob and not (not is_remote(address) and Path(address).exists()):
        found = _glob(address)
        chosen = [path for path in found if format_of(path)]
        if not chosen:
            raise DataError(f"no csv, tsv, jsonl or parquet file matches {address}")
    else:
        found = _listing(address)
        chosen = [path for path in found if format_of(path)]
        if not chosen and len(found) == 1 and found[0].endswith(PurePosixPath(address).name):
            raise DataError(
                f"{address} has no suffix that names its format; use one of {listed(FORMATS)}"
            )
        if not chosen:
            raise DataError(f"{address} holds no csv, tsv, jsonl or parquet file")
    kinds = sorted({str(format_of(path)) for path in chosen})
    if len(kinds) > 1:
        raise DataError(
            f"{address} holds files of several kinds ({listed(kinds)}); "
            "choose one with a glob such as *.csv"
        )
    return [
        DataFile(address=whole_address(path), format=format_of(path) or "csv")
        for path in sorted(chosen)
    ]


def whole_address(address: str) -> str:
    """The same place, whatever the working directory."""
    return address if is_remote(address) else str(Path(address).expanduser().absolute())


def _listing(address: str) -> list[str]:
    """The file itself, or every visible file below a folder."""
    import pyarrow.fs as pafs

    filesystem, path = filesystem_of(address)
    path = path.rstrip("/") or "/"
    try:
        info = filesystem.get_file_info(path)
        if info.type == pafs.FileType.File:
            return [address]
        if info.type != pafs.FileType.Directory:
            raise DataError(f"there is no file or folder {address}")
        below = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
    except OSError as error:
        raise DataError(f"can't read {address}: {error}") from error
    prefix = address.partition("://")[0] + "://" if is_remote(address) else ""
    return [
        prefix + entry.path
        for entry in below
        if entry.type == pafs.FileType.File and _visible(entry.path[len(path) :])
    ]


def _visible(path: str) -> bool:
    return not any(part.startswith((".", "_")) for part in path.split("/") if part)


def _glob(address: str) -> list[str]:
    """Matching files; ``*`` stays within a folder, ``**`` does not."""
    parts = address.split("/")
    first = next(i for i, part in enumerate(parts) if any(char in part for char in "*?["))
    base = "/".join(parts[:first]) or ("/" if address.startswith("/") else ".")
    pattern = parts[first:]
    start = len(base.rstrip("/")) + 1
    names = _listing(base)
    if base == "." and not address.startswith("./"):
        names = [name.removeprefix("./") for name in names]
        start = 0
    return [name for name in names if _matches(name[start:].split("/"), pattern)]


def _matches(path: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_matches(path[i:], pattern[1:]) for i in range(len(path) + 1))
    return (
        bool(path) and fnmatch.fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])
    )
