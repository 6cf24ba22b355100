"""Where a classifier that the user names lies."""

from __future__ import annotations

import re
from pathlib import Path

from llmembed.errors import ModelError

REGISTERED = re.compile(
    r"(?:models:/)?(?P<name>[^/@\s]+)(?:@(?P<alias>[^/@\s]+)|/(?P<version>[0-9]{1,9}))?\Z"
)


def find_classifier(
    model: str, *, files: str, tracking_uri: str | None = None, to: Path | None = None
) -> Path:
    """A saved classifier's folder: ``model`` itself, or downloaded from the registry.

    ``model``: a folder, ``models:/NAME@ALIAS``, ``models:/NAME/VERSION``, or a registered name
    alone, which means its champion. ``to``: where it is downloaded, by default a new temporary
    folder. Raises ``ModelError``.
    """
    from llmembed.methods import MANIFEST
    from llmembed.tracking import Tracking, download

    folder = Path(model)
    if folder.is_dir():
        if not (folder / MANIFEST).is_file():
            raise ModelError(f"{model} holds no {MANIFEST}: name the folder of a saved classifier")
        return folder
    found = REGISTERED.match(model)
    if found is None:
        raise ModelError(
            f"there is no folder {model!r}, and it is no registered model either: "
            "write a folder, NAME, models:/NAME@champion or models:/NAME/VERSION"
        )
    alias = found["alias"] or (None if found["version"] else "champion")
    address = f"models:/{found['name']}" + (f"@{alias}" if alias else f"/{found['version']}")
    return download(Tracking(tracking_uri, files=files), address, to)
