"""What every classifier's folder holds: ``classifier.json`` and ``arrays.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import load_file, save_file

from llmembed.contract import Task, Usage
from llmembed.errors import ModelError
from llmembed.methods import MANIFEST
from llmembed.permissions import loading, shown

if TYPE_CHECKING:
    from llmembed.generation import Generator


def write(
    folder: Path,
    *,
    method: str,
    tasks: Sequence[Task],
    fit_usage: Usage,
    settings: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write a classifier's manifest last, so that a folder with a manifest is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    if arrays:
        save_file(
            {k: np.ascontiguousarray(v) for k, v in arrays.items()}, folder / "arrays.safetensors"
        )
    manifest = {
        "format": 1,
        "method": method,
        "tasks": [task.to_json() for task in tasks],
        "fit_usage": fit_usage.to_json(),
        "settings": dict(settings),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def read(folder: Path) -> tuple[tuple[Task, ...], Usage, dict[str, Any], dict[str, np.ndarray]]:
    """Tasks, fit usage, settings and arrays of the classifier saved in ``folder``."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    path = folder / "arrays.safetensors"
    return (
        tuple(Task.from_json(task) for task in manifest["tasks"]),
        Usage.from_json(manifest["fit_usage"]),
        manifest["settings"],
        load_file(path) if path.is_file() else {},
    )


def generator(described: Mapping[str, Any]) -> Generator:
    """The language model that a manifest describes, if it may be asked: see
    ``llmembed.permissions``. Raises ``ModelError``."""
    from llmembed.generation.building import build_generator

    with loading():
        return build_generator(described)


def inside(folder: Path, name: str) -> Path:
    """The file ``name`` of a saved classifier. Raises ``ModelError`` where it leads elsewhere."""
    path = folder / name
    if path.resolve().parent != folder.resolve():
        raise ModelError(f"{shown(name)} leads out of {folder}: a classifier reads its own files")
    return path
