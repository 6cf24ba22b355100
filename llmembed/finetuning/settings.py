"""A training in an experiment's words: a recipe's name and the keys that change it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from llmembed.errors import ConfigError
from llmembed.finetuning.config import FinetuneConfig
from llmembed.mistakes import sentence, suggest

Recipe = Callable[[], FinetuneConfig]
PAPERS: dict[str, Recipe] = {
    "paper": FinetuneConfig.paper,
    "paper-decoder": FinetuneConfig.paper_decoder,
}


def finetune_config(values: Mapping[str, Any], ours: Recipe = FinetuneConfig) -> FinetuneConfig:
    """The settings of ``recipe`` (``ours``, ``paper`` or ``paper-decoder``), changed by the other
    keys. ``ours``: what is taken unless a recipe is named. Raises ``ConfigError``."""
    changes = dict(values)
    recipes = {"ours": ours, **PAPERS}
    recipe = changes.pop("recipe", "ours")
    known = [field.name for field in fields(FinetuneConfig) if field.name != "seed"]
    for key in changes:
        if key not in known:
            raise ConfigError(f"unknown key {key!r}{suggest(key, ['recipe', *known])}")
    if recipe not in recipes:
        raise ConfigError(f"unknown recipe {recipe!r}; known are {', '.join(recipes)}")
    try:
        # pydantic reads 1e-3, which YAML takes for a word, and refuses 2.5 steps.
        return TypeAdapter(FinetuneConfig).validate_python(
            {**recipes[recipe]().to_json(), **changes}
        )
    except ValidationError as error:
        raise ConfigError(sentence(error)) from None
