"""What a space may say of fusions and heads: one value, a list of choices, or a range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmembed.errors import ConfigError
from llmembed.heads.settings import head_config
from llmembed.mistakes import suggest
from tune.space import Dimension, number, range_of


def dimension(name: str, value: Any) -> Dimension:
    """One value, a list of choices, or ``{low, high, log, steps}``. Raises ``ConfigError``."""
    from llmembed.fusion import FUSIONS

    if isinstance(value, Mapping):
        return range_of(name, value, numbers=_NUMBERS, whole=_WHOLE)
    choices = value if isinstance(value, list) else [value]
    if name in ("extras", "widths") and choices and not isinstance(choices[0], list):
        choices = [choices]  # one flat list is one choice
    if not choices:
        raise ConfigError(f"{name}: an empty list of choices")
    if name == "fusion":
        if choices == ["all"]:
            choices = list(FUSIONS)
        for fusion in choices:
            if fusion not in FUSIONS:
                raise ConfigError(f"fusion: unknown name {fusion!r}{suggest(fusion, FUSIONS)}")
    return tuple(_choice(name, each) for each in choices)


OF_HEAD = (
    "widths",
    "dropout",
    "learning_rate",
    "weight_decay",
    "batch",
    "class_weights",
    "label_smoothing",
)
_NUMBERS = {"sigma", "width", "align_dropout", "lexical", *OF_HEAD} - {"widths", "class_weights"}
_WHOLE = {"width", "lexical", "batch"}
_LISTS = {"depths", "extras", "widths"}


def _choice(name: str, value: Any) -> Any:
    """One choice, checked by building what it is a setting of."""
    if name == "depths":
        value = _depths(value) if isinstance(value, (str, int)) else value
    if name in _LISTS:
        values = tuple(value) if isinstance(value, (list, tuple)) else None
        kind = str if name == "extras" else int
        if values is None or not all(type(each) is kind for each in values):
            raise ConfigError(f"{name}: expected a list, got {value!r}")
        return values
    if name in _NUMBERS and value is None and name == "width":
        return None
    if name in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int)):
        value = number(name, value)
    if name in _WHOLE and value != int(value):
        raise ConfigError(f"{name}: expected a whole number, got {value!r}")
    if name == "class_weights" and not isinstance(value, bool):
        raise ConfigError(f"{name}: expected true or false, got {value!r}")
    if name in ("dropout", "learning_rate", "weight_decay", "batch", "label_smoothing"):
        head_config({name: value})
    if name == "head":
        head_config({"kind": value})
    if name == "sigma" and not value > 0:
        raise ConfigError(f"sigma: expected a number above 0, got {value!r}")
    if name == "align" and value not in ("relu", "linear"):
        raise ConfigError(f"align: expected relu or linear, got {value!r}")
    return value


def _depths(text: str | int) -> tuple[int, ...]:
    from llmembed.backbones import parse_reads

    return tuple(read.depth for read in parse_reads(f"mean:{text}"))
