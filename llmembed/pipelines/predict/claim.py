"""Whose labels an output of ``predict`` holds: a run goes on with its own parts alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmembed.errors import ConfigError

if TYPE_CHECKING:
    from llmembed.pipelines.predict.parts import Parts


def check_apart(output: str, data: Sequence[str]) -> None:
    """Labels written among the data would be read as data when the run is resumed, and a file
    of the data must not be written over."""
    from llmembed.texts.files import expand

    if output in [file.address for file in expand(data)]:
        raise ConfigError(f"--output {output} is one of the files to label: write it elsewhere")
    if "://" in output:
        return
    target = Path(output).resolve()
    if target in [Path(f.address).resolve() for f in expand(data) if "://" not in f.address]:
        raise ConfigError(f"--output {output} is one of the files to label: write it elsewhere")
    for source in data:
        if "://" not in source and set(source) & set("*?[") and target.match(source):
            raise ConfigError(f"--output {output} matches --data {source}: write it elsewhere")
    for source in data:
        if "://" not in source and Path(source).is_dir():
            folder = Path(source).resolve()
            if folder == target or folder in target.parents:
                raise ConfigError(
                    f"--output {output} lies inside --data {source}: write it elsewhere"
                )


def claim(parts: Parts, run: dict[str, Any]) -> None:
    """Note whose labels ``parts`` holds; raise if they are another run's."""
    earlier = parts.run()
    if earlier is None:
        if parts.names() or parts.others():
            raise ConfigError(
                f"{parts.address} is not empty and holds no run of ours: choose another --output"
            )
    elif parts.names():
        changed = [key.replace("_", " ") for key in run if earlier.get(key) != run[key]]
        if changed:
            raise ConfigError(
                f"{parts.address} holds the labels of another run (not the same "
                f"{', '.join(changed)}): choose another --output, or remove it"
            )
    parts.claim(run)


def clear(folder: str) -> None:
    """Remove the bad rows that an earlier run set aside: this run starts anew."""
    import pyarrow.fs as pafs

    from llmembed.texts.files import filesystem_of

    filesystem, path = filesystem_of(folder)
    if filesystem.get_file_info(path).type == pafs.FileType.Directory:
        filesystem.delete_dir(path)


def digest_of(folder: Path) -> str:
    """Of a classifier's files, names and contents."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def identity_of(data: Sequence[str]) -> list[list[Any]]:
    """Address, size in bytes and time of every file, so that changed data is noticed."""
    from llmembed.texts.files import expand, filesystem_of

    found: list[list[Any]] = []
    for file in expand(data):
        filesystem, path = filesystem_of(file.address)
        info = filesystem.get_file_info(path)
        found.append([file.address, info.size, info.mtime_ns])
    return found
