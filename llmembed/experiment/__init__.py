"""What a YAML file and the command line may say.

::

    settings    every setting but the methods' own, which stand beside them, as pydantic models
    generators  those of language models that write
    loading     recipe or file, options and KEY=VALUE words -> Experiment
"""

from __future__ import annotations

from llmembed.experiment.generators import GeneratorSettings
from llmembed.experiment.loading import load_experiment, recipes
from llmembed.experiment.settings import (
    BackboneSettings,
    BudgetSettings,
    Data,
    Experiment,
    PriceSettings,
    RuntimeSettings,
    SelectionSettings,
    TrackingSettings,
)

__all__ = [
    "BackboneSettings",
    "BudgetSettings",
    "Data",
    "Experiment",
    "GeneratorSettings",
    "PriceSettings",
    "RuntimeSettings",
    "SelectionSettings",
    "TrackingSettings",
    "load_experiment",
    "recipes",
]
