"""From a recipe or a YAML file, options and KEY=VALUE words to an ``Experiment``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from llmembed.errors import ConfigError
from llmembed.experiment.settings import Experiment, complaint
from llmembed.mistakes import suggest

RECIPES = Path(__file__).parent.parent / "recipes"


def recipes() -> dict[str, Path]:
    """The ready experiments by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def load_experiment(
    recipe: str,
    *,
    changes: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    only: Sequence[str] | None = None,
) -> Experiment:
    """The experiment of a recipe's name or a YAML file, changed.

    ``changes``: dotted key -> value. ``overrides``: ``KEY=VALUE`` words, values read as YAML,
    applied last. ``only``: keep these methods.

    Raises:
        ConfigError: unknown recipe, key or method, or a value of the wrong kind.
    """
    try:
        content = yaml.safe_load(_read(recipe))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{recipe}: can't be read as YAML: {reason}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{recipe}: expected `key: value` lines at the top")
    for key, value in (changes or {}).items():
        _put(content, key, value)
    for word in overrides:
        key, _, text = word.partition("=")
        try:
            _put(content, key, yaml.safe_load(text))
        except yaml.YAMLError:
            raise ConfigError(f"{word}: the value can't be read as YAML") from None
    methods = content.get("methods") or {}
    for name in only or ():
        if name not in methods:
            raise ConfigError(f"no method {name!r} in {recipe}{suggest(name, methods)}")
    try:
        experiment = Experiment.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{recipe}: {complaint(error)}") from None
    if only is not None:
        experiment = experiment.only(only)
    if "backbones.encoder.model" in (changes or {}) and not _reads_encoder(experiment):
        raise ConfigError(
            f"--backbone: no view of {recipe} reads `encoder`; "
            f"set backbones.NAME.model for {' or '.join(experiment.backbones)}"
        )
    return experiment


def _reads_encoder(experiment: Experiment) -> bool:
    words = [*experiment.views.values()]
    for method in experiment.methods.values():
        words += method.views_read("", experiment.views).values()
    return any(word.split()[:1] == ["encoder"] for word in words)


def _read(recipe: str) -> str:
    """A recipe's text by its name, or a file's, here or on s3."""
    if "://" in recipe:
        from llmembed.embeddings.folder import Folder

        base, mark, options = recipe.partition("?")
        parent, _, name = base.rpartition("/")
        try:
            return Folder(parent + mark + options).read(name).decode("utf-8")
        except FileNotFoundError:
            raise ConfigError(f"there is no file {recipe}") from None
    return _find(recipe).read_text(encoding="utf-8")


def _find(recipe: str) -> Path:
    known = recipes()
    if recipe in known:
        return known[recipe]
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError(f"there is no file {recipe}")
        return path
    raise ConfigError(f"no recipe {recipe!r}{suggest(recipe, known)}")


def _put(content: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        inner = content.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{key}: {parent} is a value, not a group of settings")
        content = inner
    content[last] = value
