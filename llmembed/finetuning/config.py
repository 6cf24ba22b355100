"""What may be set about fine-tuning, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from llmembed.errors import ConfigError
from llmembed.sharding import Bits


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters (Hu et al. 2021) instead of full fine-tuning. ``targets``: names of the
    linear layers that get one, or all of them. ``merge``: the final model has the adapters added to
    its weights, and by themselves they are saved beside it; False saves the adapters alone, with a
    reference to the base model. None: merged unless the base was quantised."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    merge: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.targets, str):
            object.__setattr__(self, "targets", tuple(self.targets))
        if self.rank < 1:
            raise ConfigError(f"lora.rank is {self.rank}: expected at least 1")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """How a whole model is trained. ``paper`` gives the settings of the multi-task paper.

    ``batch``: rows of one optimiser step, on all workers together; ``micro_batch``: rows that a
    device computes at once, the rest is accumulated. ``epochs`` may be a fraction; ``max_steps``
    goes before it. ``warmup``: share of the steps in which the learning rate rises, after which it
    follows ``schedule`` to zero (``constant``: stays). ``max_tokens``: longer texts are cut.
    ``dropout``: None leaves the model's own. ``precision``: ``bf16`` computes in bfloat16 (weights
    stay in float32 without DeepSpeed), ``auto`` does so where the hardware multiplies in it.
    ``loss_weights``: task -> weight of its loss, 1 unless said. ``class_weights``: the loss of a
    class is weighted by the inverse of its share; ``focal``: γ of the focal loss, which counts what
    is given its truth already (1 - p)^γ times, 0 for none (both of encoders). ``evaluations``: how
    often validation is read in an epoch; ``patience``: how many of these may bring nothing better
    before training stops (None: never). The best on validation, under the tasks' metrics, is the
    model that is kept; ``keep: last`` takes the last instead. ``checkpoint_steps``: further
    checkpoints, to resume from. ``group_by_length``: a step is of rows of like length, so that
    little of it is padding. ``padding_free``: the rows of a micro-batch stand one behind another
    with no padding at all, each attending to itself alone (decoders). ``calibrate``: one
    temperature per task is fitted on validation. ``quantise``: with ``lora`` the base model's
    linear layers are read in 4 or 8 bit, as QLoRA does, and stay so.
    """

    learning_rate: float = 5e-5
    epochs: float = 3.0
    max_steps: int | None = None
    batch: int = 32
    micro_batch: int = 32
    warmup: float = 0.06
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    max_tokens: int = 256
    dropout: float | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    activation_checkpointing: bool = False
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    class_weights: bool = False
    focal: float = 0.0
    evaluations: int = 1
    patience: int | None = 3
    keep: Literal["best", "last"] = "best"
    checkpoint_steps: int | None = None
    log_steps: int = 10
    group_by_length: bool = True
    padding_free: bool = False
    calibrate: bool = True
    lora: LoraSettings | None = None
    quantise: Bits | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}: expected one of {', '.join(allowed)}"
                )
        for name, low, below in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value < below:
                raise ConfigError(f"{name} is {value}: expected at least {low} and below {below}")
        if not self.epochs > 0:
            raise ConfigError(f"epochs is {self.epochs}: expected more than 0")
        if self.quantise is not None:
            self._check_quantised()

    def _check_quantised(self) -> None:
        if self.quantise not in (4, 8):
            raise ConfigError(f"quantise is {self.quantise!r}: expected 4 or 8")
        if self.lora is None:
            raise ConfigError(
                f"quantise: {self.quantise} needs lora: quantised weights can't be trained "
                "themselves, adapters over them can"
            )
        if self.lora.merge:
            raise ConfigError(
                f"lora.merge can't be true with quantise: {self.quantise}: the adapters learned to "
                "correct the quantised weights, not the ones they would be added to; leave it out"
            )

    @property
    def merges(self) -> bool:
        """Whether the final model is one whole model, adapters added where there are any."""
        if self.lora is None or self.lora.merge:
            return True
        return self.lora.merge is None and self.quantise is None

    @classmethod
    def decoder(cls, **changes: Any) -> FinetuneConfig:
        """Ours for causal models, whose prompts are long and whose weights move little."""
        return cls(**{"learning_rate": 1e-5, "batch": 8, "max_tokens": 1024, **changes})

    @classmethod
    def paper(cls, **changes: Any) -> FinetuneConfig:
        """The encoder settings of the multi-task fine-tuning paper (2025), section 5: Adam at a
        constant 1e-5, batches of 32, 20 epochs on MASSIVE and 10 on 20 Newsgroups (say
        ``epochs=10``). Ours still keeps the best on validation."""
        settings: dict[str, Any] = {
            "learning_rate": 1e-5,
            "epochs": 20.0,
            "warmup": 0.0,
            "schedule": "constant",
            "weight_decay": 0.0,
            "max_tokens": 512,
            "patience": None,
        }
        return cls(**{**settings, **changes})

    @classmethod
    def paper_decoder(cls, **changes: Any) -> FinetuneConfig:
        """The same paper's settings for decoders of 7 to 8 billion parameters: AdamW at 1e-6, no
        warm-up, batches of 8, 4000 steps."""
        settings: dict[str, Any] = {
            "learning_rate": 1e-6,
            "max_steps": 4000,
            "batch": 8,
            "micro_batch": 1,
            "warmup": 0.0,
            "schedule": "constant",
            "max_tokens": 4096,
            "patience": None,
            "precision": "bf16",
            "activation_checkpointing": True,
        }
        return cls(**{**settings, **changes})

    def steps(self, rows: int) -> int:
        """Optimiser steps over ``rows`` training rows."""
        return self.max_steps or max(1, round(self.epochs * rows / self.batch))

    def evaluate_every(self, rows: int) -> int:
        """Steps between two readings of validation."""
        return max(1, min(self.steps(rows), round(rows / self.batch / self.evaluations)))

    def micro(self, workers: int) -> tuple[int, int]:
        """Rows that each of ``workers`` computes at once, and how many such it accumulates. Raises
        ``ConfigError`` where the batch can't be shared evenly."""
        own, rest = divmod(self.batch, workers)
        if rest:
            raise ConfigError(
                f"a batch of {self.batch} rows can't be shared evenly by {workers} workers"
            )
        size = next(n for n in range(min(own, self.micro_batch), 0, -1) if own % n == 0)
        return size, own // size

    def to_json(self) -> dict[str, Any]:
        told = asdict(self)
        if self.lora is not None and not isinstance(self.lora.targets, str):
            told["lora"]["targets"] = list(self.lora.targets)
        return told

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FinetuneConfig:
        lora = data.get("lora")
        return cls(**{**data, "lora": None if lora is None else LoraSettings(**lora)})


_CHOICES: dict[str, tuple[str, ...]] = {
    "schedule": ("linear", "cosine", "constant"),
    "precision": ("auto", "fp32", "bf16"),
    "keep": ("best", "last"),
}
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("learning_rate", 1e-12, 1e3),
    ("max_steps", 1, float("inf")),
    ("batch", 1, float("inf")),
    ("micro_batch", 1, float("inf")),
    ("warmup", 0, 1),
    ("weight_decay", 0, 1e3),
    ("max_grad_norm", 0, float("inf")),
    ("max_tokens", 8, float("inf")),
    ("dropout", 0, 1),
    ("focal", 0, 100),
    ("evaluations", 1, float("inf")),
    ("patience", 1, float("inf")),
    ("checkpoint_steps", 1, float("inf")),
    ("log_steps", 1, float("inf")),
    ("seed", 0, 2**32),
)


def computes_bf16(config: FinetuneConfig) -> bool:
    """Where this is called; elsewhere ``auto`` may come to something else."""
    from llmembed.backbones import best_dtype

    if config.precision == "auto":
        return best_dtype() == "bfloat16"
    return config.precision == "bf16"
