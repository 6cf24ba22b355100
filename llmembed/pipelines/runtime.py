"""Where work is done and where its files lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from llmembed.errors import ConfigError

FILES = "llmembed-files"


def files_folder(files: str | None) -> str:
    """Where stores, runs and results are kept: as asked, ``LLMEMBED_FILES``, or here."""
    place = files if files not in (None, FILES) else os.environ.get("LLMEMBED_FILES", FILES)
    assert place is not None
    return place if "://" in place else str(Path(place).resolve())


def make_runtime(
    *,
    files: str | None = None,
    address: str | None = None,
    local: bool = False,
    actors: int | tuple[int, int] | Literal["auto"] = "auto",
    threads_per_actor: int | Literal["auto"] = "auto",
    gpus_per_actor: float | Literal["auto"] = "auto",
) -> Any:
    """A ``RayRuntime``, or with ``local`` the in-process one; a context manager."""
    from llmembed.cluster import LocalRuntime, RayRuntime

    place = files_folder(files)
    _check_place(place)
    if local:
        return LocalRuntime(place)
    return RayRuntime(
        place,
        address=address,
        actors=actors,
        threads_per_actor=threads_per_actor,
        gpus_per_actor=gpus_per_actor,
    )


def tracking_files(files: str) -> str:
    """Where MLflow's SQLite file lies when no tracking address is set: with the other files, or
    for a remote store in the home folder, since a database file can't lie in an object store."""
    return str(Path.home() / FILES) if "://" in files else files


def _check_place(files: str) -> None:
    """Raise ``ConfigError`` now, not after the data were read, if nothing can be kept there."""
    if "://" in files:
        return
    for name in ("", "mlartifacts", "quarantine", "leaderboards", "store", "mlflow.db"):
        path = Path(files, name)
        there = next(p for p in (path, *path.parents) if p.exists())
        folder = there.is_dir() != (there == path and name == "mlflow.db")
        if not folder:
            what = "a folder" if there.is_dir() else "a file"
            raise ConfigError(f"--files {files}: {there} is {what}; name another place")
        if not os.access(there, os.W_OK):
            raise ConfigError(f"--files {files}: {there} can't be written; name another place")
