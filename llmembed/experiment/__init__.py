"""What a YAML file and the command line may say.

::

    finetuning those of models that are trained whole
    prompting  those of language models that write, and of the methods that ask them
    settings   every setting, as pydantic models; unknown keys are refused
    loading    recipe or file, options and KEY=VALUE words -> Experiment
    mistakes   one sentence that names the key
"""

from __future__ import annotations

from llmembed.experiment.finetuning import DecoderSettings, EncoderSettings, finetune_config
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
    "DecoderSettings",
    "EncoderSettings",
    "Experiment",
    "FusedSettings",
    "GeneratorSettings",
    "LexicalSettings",
    "PriceSettings",
    "ProbeSettings",
    "PromptSettings",
    "RuntimeSettings",
    "TrackingSettings",
    "finetune_config",
    "head_config",
    "load_experiment",
    "recipes",
]
