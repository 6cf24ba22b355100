"""What the fine-tuning methods share: who trains, where the model then lies, who hears of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from llmembed.backbones.quantising import BITS_HELD, Bits
from llmembed.contract import Reporter, Runtime, Usage
from llmembed.finetuning import FinetuneConfig
from llmembed.finetuning.places import Source, untrained_reason
from llmembed.finetuning.worker import DecoderWork, EncoderWork
from llmembed.methods.finetuned.model_folder import ModelFolder
from llmembed.sharding import Sharding


@dataclass(frozen=True, kw_only=True)
class Spread:
    """On how many workers a model is trained, and by which stage of DeepSpeed's ZeRO (``off``:
    without DeepSpeed); ``auto`` works it out from the model's size and the devices' memory."""

    workers: int | Literal["auto"] = "auto"
    zero: int | Literal["auto", "off"] = "auto"
    offload: bool | Literal["auto"] = "auto"

    def sharding(self, source: Source, config: FinetuneConfig, run: str) -> Sharding:
        lora = config.lora
        return Sharding(
            run=run,
            # Adapters of rank 16 on every linear layer are some 0.6 % of a model of 7 billion.
            trained=None if lora is None else max(1, source.parameters * lora.rank // 1600),
            parameters=source.parameters,
            frozen_bits=_bits(source, config.quantise),
            batch=config.batch,
            workers=self.workers,
            zero=self.zero,
            offload=self.offload,
            bf16=config.precision != "fp32",
            checkpointed=config.activation_checkpointing,
        )


def _bits(source: Source, quantise: Bits | None) -> float:
    """What a frozen weight takes in the mean; embeddings are never quantised."""
    if quantise is None:
        return 16.0
    share = source.embedding_parameters / max(1, source.parameters)
    return 16.0 * share + BITS_HELD[quantise] * (1 - share)


class Trains:
    """Base of the methods that train a whole model: what follows from ``model`` and ``training``
    alone."""

    model: str
    training: FinetuneConfig

    @property
    def machinery_only(self) -> bool:
        return untrained_reason(self.model) is not None

    @property
    def training_settings(self) -> dict[str, Any]:
        """What was asked of the training, seed apart."""
        return {k: v for k, v in self.training.to_json().items() if k != "seed"}

    def seeded(self, seed: int) -> Self:
        given: Any = self  # a frozen dataclass
        changed: Self = replace(given, training=replace(self.training, seed=seed))
        return changed


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """What training left. ``best_step``: the step whose weights are kept; ``bf16``: whether the
    workers computed in bfloat16; ``why``: how the work was shared out; ``usage``: of all
    workers."""

    model: ModelFolder
    usage: Usage
    parameters_trained: int
    best_step: int
    bf16: bool
    why: str
    history: list[dict[str, float]]


def finetune(
    work: EncoderWork | DecoderWork,
    *,
    name: str,
    source: Source,
    config: FinetuneConfig,
    spread: Spread,
    runtime: Runtime,
    reporter: Reporter,
) -> Finetuned:
    """Train by ``work`` on the runtime's workers; ``reporter`` hears every step they report. What
    the same training reached before its process was killed is not done again."""

    def listen(metrics: Mapping[str, float]) -> None:
        told = {key: value for key, value in metrics.items() if key != "step"}
        if told:
            reporter.report(told, step=int(metrics.get("step", 0)))

    trained = runtime.train(
        work,
        name=name,
        sharding=spread.sharding(source, config, work.digest()),
        listen=listen,
    )
    assert trained.folder is not None, "the last report keeps a folder"
    told = json.loads((trained.folder / "progress.json").read_text(encoding="utf-8"))
    return Finetuned(
        model=ModelFolder.left_by(trained, runtime, name),
        usage=Usage.from_json(told["usage"]),
        parameters_trained=told["parameters_trained"],
        best_step=told["best_step"],
        bf16=told["bf16"],
        why=trained.why,
        history=told["history"],
    )
