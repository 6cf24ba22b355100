"""What MLflow accepts as keys, params, tags and metrics, and how ours are made to fit."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from llmembed.tracking.privacy import HIDDEN, masked, names_a_secret

# MLflow 3.17's own limits (mlflow/utils/validation.py), with room for the note of a cut.
PARAMS_PER_BATCH = 100
METRICS_PER_BATCH = 1000
PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000
DIGEST_CHARACTERS = 36
_KEY_CHARACTERS = 250


def clean_key(key: str) -> str:
    """``key`` with what MLflow refuses in names replaced by ``_``; as a path it stays as it is
    written: no part of it is ``.`` or ``..``."""
    cleaned = re.sub(r"[^\w\-. /]", "_", str(key)).strip("/. ")
    cleaned = re.sub(r"/{2,}|\.{2,}", ".", cleaned)[:_KEY_CHARACTERS].strip("/. ") or "_"
    return "/".join("_" if part in (".", "..") else part for part in cleaned.split("/"))


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted keys: ``{"head": {"lr": 1}}`` gives ``head.lr``."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def text_of(key: str, value: Any) -> str:
    """A param's or tag's value as text, secrets masked."""
    if names_a_secret(key) and value not in (None, "", False):
        return HIDDEN
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, list | tuple | dict):
        return masked(json.dumps(value, default=str, ensure_ascii=False))
    return masked(str(value))


def cut(text: str, limit: int, *, rest: str = "") -> str:
    """``text``, or its beginning with a note that says how long it was and where the ``rest``
    is; never longer than ``limit`` characters."""
    if len(text) <= limit:
        return text
    note = f" [cut: {len(text)} characters in all{'; ' + rest if rest else ''}]"
    return text[: limit - len(note)] + note


def number(value: Any) -> float | None:
    """A metric's value as a float, None for one that is absent or not finite (see
    ``is_absent``)."""
    if value is None:
        return None
    value = float(value)
    return value if math.isfinite(value) else None
