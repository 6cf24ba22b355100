"""What is searched of a model that is trained whole: dimensions, distinct configurations.

A dimension is a setting of the method (``model``, ``pooling``, ``shots``, …), of its training
(``learning_rate``, ``epochs``, …) or of its adapters (``lora.rank``). What has no effect is left
out of a configuration: the adapters' settings where ``lora.rank`` is null (the whole model is
trained), ``epochs`` beside ``max_steps``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from pydantic import ValidationError

from llmembed.errors import ConfigError
from llmembed.finetuning import FinetuneConfig, LoraSettings
from llmembed.methods.finetuned.settings import FinetunedSettings
from llmembed.mistakes import sentence, suggest
from tune.space import Dimension, Walked, id_of, number, range_of

OF_TRAINING = (
    "learning_rate",
    "epochs",
    "max_steps",
    "batch",
    "warmup",
    "schedule",
    "weight_decay",
    "max_grad_norm",
    "max_tokens",
    "dropout",
    "patience",
)
OF_LORA = ("lora.rank", "lora.alpha", "lora.dropout")
WHOLE = {"max_steps", "batch", "max_tokens", "patience", "lora.rank", "shots"}
NUMBERS = {*OF_TRAINING, *OF_LORA, "shots"} - {"schedule"}


@dataclass(frozen=True, kw_only=True)
class TrainingConfiguration:
    """One training to try: ``settings``, (dotted name, value), change the sweep's method."""

    kind: str
    settings: tuple[tuple[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **dict(self.settings)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrainingConfiguration:
        own = {name: value for name, value in data.items() if name != "kind"}
        return cls(kind=data["kind"], settings=tuple(own.items()))

    @property
    def id(self) -> str:
        """Ten hexadecimal digits; equal configurations have equal ones."""
        return id_of(self.to_json())

    @property
    def title(self) -> str:
        return self.kind

    @property
    def run_name(self) -> str:
        return " ".join([self.kind, *(f"{name}={value}" for name, value in self.settings)])

    def differing(self, others: Sequence[TrainingConfiguration]) -> dict[str, Any]:
        """The settings in which ``others`` differ: what names this one."""
        told = [dict(other.settings) for other in others]
        names = {name for each in told for name in each}
        varied = {n for n in names if len({each.get(n) for each in told}) > 1}
        return {name: value for name, value in self.settings if name in varied}


@dataclass(frozen=True, kw_only=True)
class TrainingSpace(Walked[TrainingConfiguration]):
    """Dimensions of a method that trains whole models; ``max_steps``: whether the method itself
    says how many."""

    kind: str
    max_steps: bool = False

    def order(self) -> list[str]:
        return sorted(self.dimensions, key=lambda name: name not in ("lora.rank", "max_steps"))

    def matters(self, name: str, point: Mapping[str, Any]) -> bool:
        if name in OF_LORA:
            return name == "lora.rank" or point.get("lora.rank", 1) is not None
        if name == "epochs":
            return point.get("max_steps", 1 if self.max_steps else None) is None
        return True

    def canonical(self, point: Mapping[str, Any]) -> TrainingConfiguration:
        """The configuration at ``point``, without what does not matter to it."""
        own = [(n, point[n]) for n in self.dimensions if n in point and self.matters(n, point)]
        return TrainingConfiguration(kind=self.kind, settings=tuple(own))


def known_dimensions(method: FinetunedSettings) -> tuple[str, ...]:
    """What may be searched of a method that trains a whole model."""
    return (*OF_TRAINING, *(OF_LORA if method.causal else ()), *method.searched)


def with_settings(method: FinetunedSettings, changes: Mapping[str, Any]) -> FinetunedSettings:
    """``method`` with dotted ``changes`` of itself, its training and its adapters. Raises
    ``ConfigError``."""
    told = method.model_dump()
    training = dict(told["training"])
    for name, value in changes.items():
        if name in method.searched:
            told[name] = value
        elif name in OF_LORA:
            if value is None:
                training["lora"] = None
                continue
            training["lora"] = {**(training.get("lora") or {}), name.partition(".")[2]: value}
        else:
            training[name] = value
    if isinstance(training.get("lora"), dict):
        training["lora"] = _adapters(training["lora"])
    try:
        return type(method).model_validate({**told, "training": training})
    except ValidationError as error:
        raise ConfigError(sentence(error).removeprefix("training: ")) from None


def _adapters(given: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name: None for field in fields(LoraSettings)}
    for key in given:
        if key not in known:
            raise ConfigError(f"lora: unknown key {key!r}{suggest(key, known)}")
    return dict(given)


def training_dimension(method: FinetunedSettings, name: str, value: Any) -> Dimension:
    """One value, a list of choices, or ``{low, high, log, steps}``, each tried by building the
    method it is a setting of. Raises ``ConfigError``."""
    known = known_dimensions(method)
    if name not in known:
        if name.startswith("lora"):
            if not method.causal:
                raise ConfigError(f"{name}: LoRA is for decoders; an encoder is trained whole")
            raise ConfigError(f"unknown dimension {name!r}; of LoRA {', '.join(OF_LORA)} are known")
        raise ConfigError(f"unknown dimension {name!r}{suggest(name, known)}")
    if isinstance(value, Mapping):
        made = range_of(name, value, numbers=NUMBERS, whole=WHOLE)
        for end in (made.low, made.high):
            with_settings(method, {name: round(end) if made.whole else end})
        return made
    choices = value if isinstance(value, list) else [value]
    if not choices:
        raise ConfigError(f"{name}: an empty list of choices")
    return tuple(_choice(method, name, each) for each in choices)


def _choice(method: FinetunedSettings, name: str, value: Any) -> Any:
    if value is not None and name in NUMBERS:
        value = number(name, value)
        if name in WHOLE:
            if value != int(value):
                raise ConfigError(f"{name}: expected a whole number, got {value!r}")
            value = int(value)
    elif isinstance(value, list | dict):
        raise ConfigError(f"{name}: expected a plain value, got {value!r}")
    with_settings(method, {name: value})
    return value


def epochs_of(config: FinetuneConfig, rows: int, step: int) -> float:
    """How often ``step`` optimiser steps have read ``rows`` training rows, by the number of the
    reading of validation: the n-th of one reading an epoch is at epoch n, although it comes at a
    whole step, a little before or after all rows were read n times. What waits for whole epochs
    (the rungs of ASHA, a grace of one) so acts at the reading that belongs to them. The last step
    counts as the reading that it lies beside by rounding."""
    every = config.evaluate_every(rows)
    if every < round(rows / config.batch / config.evaluations):
        return step * config.batch / max(1, rows)  # all of it is less than one reading's distance
    number = round(step / every)
    beside = step == config.steps(rows) and abs(step - number * every) <= (number + 1) / 2
    return (number if beside else step / every) / config.evaluations
