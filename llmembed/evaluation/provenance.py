"""What a result says of its origin: the method's settings and the versions at work."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from llmembed.contract import Method

_NOT_SETTINGS = {"name", "label", "seed", "machinery_only", "deterministic"}


def settings_of(method: Method) -> dict[str, Any]:
    """What the method was told, seed apart, as plain JSON."""
    if hasattr(method, "settings"):
        return dict(plain(method.settings))
    if not is_dataclass(method):
        return {}
    named = {item.name: getattr(method, item.name) for item in fields(method) if item.repr}
    return {key: plain(value) for key, value in named.items() if key not in _NOT_SETTINGS}


def plain(value: Any) -> Any:
    """``value`` as JSON holds it; what JSON does not know, by its own ``to_json`` or its name."""
    if hasattr(value, "to_json"):
        return plain(value.to_json())
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        parts = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [plain(part) for part in parts]
    if isinstance(value, np.generic):
        return value.item()
    return json.loads(json.dumps(value, default=str))


def versions() -> dict[str, str]:
    """Of Python and of the packages that bear on figures, where installed."""
    found = {"python": platform.python_version()}
    for package in ("llmembed", "numpy", "scikit-learn", "torch", "transformers", "ray"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
