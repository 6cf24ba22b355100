"""A head in an experiment's words: a recipe's name and the keys that change it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from llmembed.errors import ConfigError
from llmembed.heads.config import HeadConfig
from llmembed.mistakes import sentence, suggest


def head_config(values: Mapping[str, Any]) -> HeadConfig:
    """A head's settings: those of ``recipe`` (``ours`` or ``paper``), changed by the other keys.
    Raises ``ConfigError``."""
    changes = dict(values)
    recipe = changes.pop("recipe", "ours")
    known = [field.name for field in fields(HeadConfig) if field.name != "seed"]
    for key in changes:
        if key not in known:
            raise ConfigError(f"unknown key {key!r}{suggest(key, ['recipe', *known])}")
    if recipe not in ("ours", "paper"):
        raise ConfigError(f"unknown recipe {recipe!r}; known are ours, paper")
    base = HeadConfig.paper() if recipe == "paper" else HeadConfig()
    try:
        # pydantic reads 1e-3, which YAML takes for a word, and refuses 2.5 epochs.
        return TypeAdapter(HeadConfig).validate_python({**base.to_json(), **changes})
    except ValidationError as error:
        raise ConfigError(sentence(error)) from None
