"""Where rows come from: one file, a folder, a glob, here or in an object store.

Addresses with a scheme (``s3://bucket/key``) go through ``pyarrow.fs`` (which reads the usual
``AWS_*`` variables, ``AWS_ENDPOINT_URL`` among them), and through fsspec where pyarrow does not
know the scheme.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from llmembed.errors import DataError
from llmembed.texts.columns import listed
from llmembed.texts.encodings import UTF8, as_utf8
from llmembed.texts.form import Form

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.fs as pafs

Format = Literal["csv", "tsv", "jsonl", "parquet", "arrow"]
FORMATS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
}
KINDS = "csv, tsv, jsonl, parquet or arrow file"
COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
DESCRIPTIONS = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json")
"""What ``datasets`` writes beside its files of rows."""


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """One file; picklable, opened where it is read."""

    address: str
    format: Format
    form: Form = field(default_factory=Form)

    def open_bytes(self) -> pa.NativeFile:
        """Bytes from the start, decompressed where the suffix says so."""
        filesystem, path = filesystem_of(self.address)
        compression = COMPRESSED.get(PurePosixPath(path).suffix.lower())
        try:
            return filesystem.open_input_stream(path, compression=compression)
        except OSError as error:
            raise DataError(f"can't read {self.address}: {error}") from error

    def open_stream(self) -> pa.NativeFile:
        """As ``open_bytes``, brought to UTF-8 from the encoding of ``form``."""
        stream, encoding = self.open_bytes(), self.form.encoding
        return stream if encoding in (None, UTF8) else as_utf8(stream, encoding)

    def start(self, size: int) -> bytes:
        """The first ``size`` bytes of ``open_bytes``."""
        try:
            with self.open_bytes() as stream:
                return bytes(stream.read(size))
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
    return FORMATS.get(suffix_of(address)[0])


def suffix_of(address: str) -> tuple[str, str]:
    """The suffix that names the format, in small letters, and the name without any suffix of
    ours."""
    path = PurePosixPath(address)
    if path.suffix.lower() in COMPRESSED:
        path = path.with_suffix("")
    suffix = path.suffix.lower()
    return suffix, path.stem if suffix in FORMATS else path.name


def is_pattern(address: str) -> bool:
    """Whether ``address`` is a glob, and no file or folder here that is called so."""
    if not any(char in address for char in "*?["):
        return False
    return is_remote(address) or not Path(address).exists()


def expand(source: str | Path | Sequence[str | Path], form: Form | None = None) -> list[DataFile]:
    """The files of a source, sorted by name, local ones by their whole path: a worker may have
    another working directory. Hidden files (``.`` or ``_`` first) are passed over, and in a folder
    or a glob also files of other kinds. ``form``: how they are written. Raises ``DataError``."""
    form = Form() if form is None else form
    if not isinstance(source, (str, Path)):
        return [file for part in source for file in expand(part, form)]
    address = str(source)
    if is_pattern(address):
        found = _glob(address)
        chosen = [path for path in found if format_of(path)]
        if not chosen:
            raise DataError(f"no {KINDS} matches {address}")
    else:
        found = _listing(address)
        chosen = _rows_alone([path for path in found if format_of(path)])
        if not chosen and len(found) == 1 and found[0].endswith(PurePosixPath(address).name):
            if PurePosixPath(address).suffix.lower() in (".xlsx", ".xls", ".ods"):
                raise DataError(
                    f"{address} is a workbook, which is not read: save its sheet as `CSV UTF-8`"
                )
            raise DataError(
                f"{address} has no suffix that names its format; use one of {listed(FORMATS)}"
            )
        if not chosen:
            raise DataError(f"{address} holds no {KINDS}")
    kinds = sorted({str(format_of(path)) for path in chosen})
    if len(kinds) > 1:
        raise DataError(
            f"{address} holds files of several kinds ({listed(kinds)}); "
            "choose one with a glob such as *.csv"
        )
    return [
        DataFile(address=whole_address(path), format=format_of(path) or "csv", form=form)
        for path in sorted(chosen)
    ]


def _rows_alone(paths: list[str]) -> list[str]:
    """Without the descriptions that ``datasets`` puts beside files of rows: its ``save_to_disk``
    and a copy of the hub hold them. Of .arrow files those that a state.json beside them names."""
    described = {path for path in paths if PurePosixPath(path).name in DESCRIPTIONS}
    others = [path for path in paths if path not in described]
    for state in (p for p in described if PurePosixPath(p).name == "state.json"):
        folder = state.removesuffix("state.json")
        own = _named_by(state)
        others = [
            path
            for path in others
            if not path.startswith(folder)
            or "/" in path[len(folder) :]
            or path[len(folder) :] in own
        ]
    return others or paths


def _named_by(state: str) -> set[str]:
    """The files of rows that ``save_to_disk`` notes in its state.json."""
    import json

    try:
        found = json.loads(DataFile(address=state, format="jsonl").start(1 << 24))
        names = {str(file["filename"]) for file in found["_data_files"]}
        indices = found.get("_indices_files") or found.get("_indices_data_files")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{state} is no state.json of save_to_disk: {error!r}") from error
    if indices:
        raise DataError(
            f"{state} names an index over its rows: write the data set anew with to_parquet"
        )
    return names


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
