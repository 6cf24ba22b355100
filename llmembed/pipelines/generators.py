"""The language models of an experiment, and what they cost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmembed.contract import Usage
from llmembed.errors import ConfigError
from llmembed.experiment import Experiment
from llmembed.methods.settings import whole
from llmembed.mistakes import suggest
from llmembed.pipelines.runtime import files_folder, tracking_files

if TYPE_CHECKING:
    from llmembed.generation import Generator

RESPONSES = "responses.sqlite"
"""The cache of answers, beside the embedding store."""
TOKEN_PRICES = ("usd_per_1000_prompt_tokens", "usd_per_1000_completion_tokens")


class Generators:
    """The language models of an experiment, each made once, with the cache of its files."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._made: dict[str, Generator] = {}

    def named(self, name: str, key: str) -> Generator:
        """Raises ``ConfigError`` for a name the experiment does not know."""
        known = self._experiment.generators
        if name not in known:
            hint = (
                suggest(name, known)
                if known
                else "; add one, for example generators.llm.model=FOLDER"
            )
            raise ConfigError(f"{key}: no generator {name!r}{hint}")
        if name not in self._made:
            from llmembed.generation.building import build_generator
            from llmembed.metering import Prices

            settings = known[name].described()
            if settings["kind"] == "endpoint":
                settings["prices"] = Prices(**self._experiment.prices.model_dump())
            if known[name].cache != "off":
                settings["cache"] = str(cache_of(self._experiment.runtime.files))
                settings["refresh"] = known[name].cache == "refresh"
            try:
                self._made[name] = build_generator(settings)
            except ConfigError as error:
                raise ConfigError(f"generators.{name}: {error}") from None
        return self._made[name]

    def paid(self) -> Usage:
        """What this process really spent on them."""
        return sum((made.paid() for made in self._made.values()), Usage())


def asked_by(experiment: Experiment, name: str) -> set[str]:
    """The language models that the method ``name`` and what it is made of ask."""
    methods = experiment.methods
    parts = whole(methods[name], f"methods.{name}", methods)
    return {called for _, settings in parts for called in settings.generators_asked}


def check_keys(experiment: Experiment, names: Sequence[str]) -> None:
    """Raise ``ConfigError`` now, not after an hour, where an endpoint's key is not set."""
    for called in sorted({called for name in names for called in asked_by(experiment, name)}):
        if called not in experiment.generators:
            continue  # said when the method is built
        asked = experiment.generators[called]
        variable = asked.api_key_env
        if asked.base_url and variable and not os.environ.get(variable, "").strip():
            raise ConfigError(
                f"generators.{called}: the key is expected in the environment variable "
                f"{variable}, which is not set; where the endpoint asks for none, set "
                f"generators.{called}.api_key_env=null"
            )


def default_prices(experiment: Experiment, names: Sequence[str]) -> str | None:
    """One line where a budget in USD is counted by prices that nobody set, else None. ``names``:
    the methods of ``experiment`` that are run."""
    asked = {called for name in names for called in asked_by(experiment, name)}
    limited = sorted(
        name
        for name in asked & {*experiment.generators}
        if experiment.generators[name].budget_usd is not None
    )
    unset = [key for key in TOKEN_PRICES if key not in experiment.prices.model_fields_set]
    if not limited or not unset:
        return None
    told = " and ".join(f"prices.{key} ({getattr(experiment.prices, key):g})" for key in unset)
    where = ", ".join(f"generators.{name}.budget_usd" for name in limited)
    return f"{where}: USD are counted at the default of {told}; set what your endpoint charges"


def cache_of(files: str) -> Path:
    """Where answers are kept: with the files, or in the home folder where those are remote."""
    return Path(tracking_files(files_folder(files))) / RESPONSES
