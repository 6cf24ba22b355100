"""What may be set about a head and its training, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from llmembed.errors import ConfigError

HEADS: dict[str, str] = {
    "mlp": "llmembed.heads.modules:mlp",
    "linear": "llmembed.heads.modules:linear",
}
"""Head -> ``module:function`` of ``(features, classes, widths, dropout)``, imported when used."""


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """A head and how it is trained. The defaults are our recipe; ``paper`` gives the authors'.

    ``widths``: hidden layers of ``mlp``. ``inputs``: ``standard`` brings every coordinate of a
    view, and then of the features, to mean 0 and deviation 1 over the training rows; ``none`` takes
    them as they are. ``schedule``: the learning rate stays (``constant``) or falls to zero along a
    half cosine over ``epochs``, after one epoch of warm-up. ``patience``: epochs without a better
    value on validation, under the tasks' metrics, before training stops; the best epoch's weights
    are kept. None trains all ``epochs`` and keeps the last weights. ``class_weights``: the loss of
    a class is weighted by the inverse of its share. ``focal``: γ of the focal loss (Lin et al.
    2017): the loss of a text (``multi``: of a cell) counts (1 - p)^γ times, p being what its truth
    was given; 0 for none, 2 as published. ``batch``: rows in a step, fewer when an epoch would
    otherwise have less than ``least_steps`` steps (never fewer than 16), so that a few hundred
    texts are not seen in a handful of steps. ``precision``: ``bf16`` computes matrix products in
    bfloat16, weights and optimiser stay in float32; ``auto`` does so where the hardware does.
    ``calibrate``: one temperature per task is fitted on validation.
    """

    kind: str = "mlp"
    widths: tuple[int, ...] = (128,)
    dropout: float = 0.5
    inputs: Literal["standard", "none"] = "standard"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    schedule: Literal["constant", "cosine"] = "cosine"
    label_smoothing: float = 0.05
    class_weights: bool = False
    focal: float = 0.0
    batch: int = 128
    least_steps: int = 32
    epochs: int = 60
    patience: int | None = 8
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    calibrate: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(int(width) for width in self.widths))
        if self.kind not in HEADS:
            raise ConfigError(f"unknown head {self.kind!r}: expected one of {', '.join(HEADS)}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}: expected one of {', '.join(allowed)}"
                )
        for name, low, below in _RANGES:
            value = getattr(self, name)
            if not low <= value < below:
                raise ConfigError(f"{name} is {value}: expected at least {low} and below {below}")
        if self.patience is not None and self.patience < 1:
            raise ConfigError(f"patience is {self.patience}: expected 1 or more, or none")
        if any(width < 1 for width in self.widths):
            raise ConfigError(f"widths are {self.widths}: expected 1 or more for each")

    @classmethod
    def paper(cls, **changes: Any) -> HeadConfig:
        """The settings in the authors' code (LLMEmbed, ACL 2024), but for the softmax that it
        applies before the cross-entropy: logits go in here."""
        settings: dict[str, Any] = {
            "widths": (1024, 256),
            "inputs": "none",
            "learning_rate": 1e-4,
            "weight_decay": 0.0,
            "schedule": "constant",
            "label_smoothing": 0.0,
            "batch": 1024,
            "least_steps": 1,
            "epochs": 100,
            "patience": None,
            "precision": "fp32",
            "calibrate": False,
        }
        return cls(**{**settings, **changes})

    def batch_for(self, count: int) -> int:
        """Rows in a step when there are ``count`` training rows."""
        if self.least_steps == 1:
            return self.batch
        return min(self.batch, max(16, count // self.least_steps))

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "widths": list(self.widths)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> HeadConfig:
        return cls(**data)


_CHOICES: dict[str, tuple[str, ...]] = {
    "inputs": ("standard", "none"),
    "schedule": ("constant", "cosine"),
    "precision": ("auto", "fp32", "bf16"),
}
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("dropout", 0, 1),
    ("learning_rate", 1e-12, 1e3),
    ("weight_decay", 0, 1e3),
    ("label_smoothing", 0, 1),
    ("focal", 0, 100),
    ("batch", 1, float("inf")),
    ("least_steps", 1, float("inf")),
    ("epochs", 1, float("inf")),
    ("seed", 0, 2**63),
)
