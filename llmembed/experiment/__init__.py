"""What a YAML file and the command line may say.

::

    prompting  those of language models that write, and of the methods that ask them
    settings   every setting, as pydantic models; unknown keys are refused
    loading    recipe or file, options and KEY=VALUE words -> Experiment
    mistakes   one sentence that names the key
"""

from __future__ import annotations

from llmembed.experiment.loading import load_experiment, recipes
from llmembed.experiment.prompting import CarpSettings, GeneratorSettings, PromptSettings
from llmembed.experiment.settings import (
    BackboneSettings,
    BudgetSettings,
    Data,
    Experiment,
    FusedSettings,
    LexicalSettings,
    PriceSettings,
    ProbeSettings,
    RuntimeSettings,
    TrackingSettings,
    head_config,
)

__all__ = [
    "BackboneSettings",
    "BudgetSettings",
    "CarpSettings",
    "Data",
    "Experiment",
    "FusedSettings",
    "GeneratorSettings",
    "LexicalSettings",
    "PriceSettings",
    "ProbeSettings",
    "PromptSettings",
    "RuntimeSettings",
    "TrackingSettings",
    "head_config",
    "load_experiment",
    "recipes",
]
