"""The heads, the scaler before them, and the module that joins fusion, scaler and heads."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from llmembed.contract import Task
from llmembed.heads.config import HEADS, HeadConfig


class FusionModule(Protocol):
    """What the heads need to know of a fusion; ``llmembed.fusion.build_fusion`` makes one.

    ``shapes``: view -> (L, D) of the views read. ``settings`` rebuild it, as JSON.
    """

    features: int
    shapes: dict[str, tuple[int, int]]
    settings: dict[str, Any]

    @property
    def has_parameters(self) -> bool: ...

    def __call__(self, views: Mapping[str, Tensor]) -> Tensor: ...


def dropout_mask(octets: Tensor, cut: int, dtype: torch.dtype) -> Tensor:
    """What dropout multiplies by, from random bytes; ``cut``: its probability in 256ths."""
    return (octets >= cut).to(dtype).mul_(256 / (256 - cut))


class Dropout(nn.Module):
    """Dropout whose mask costs a byte of randomness an element, not a draw each.

    On a CPU drawing the mask is a large part of a small head's step. The probability is rounded
    to a 256th, at most 255 of them.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.p = probability
        self.cut = min(255, round(probability * 256))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.cut == 0:
            return x
        draws = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device)
        draws.random_(-(2**63), None)
        octets = draws.view(torch.uint8)[: x.numel()].view(x.shape)
        return x * dropout_mask(octets, self.cut, x.dtype)


def mlp(features: int, classes: int, widths: Sequence[int], dropout: float) -> nn.Module:
    """(Linear, ReLU, Dropout) for each width, then Linear to the classes."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(features, width), nn.ReLU(inplace=True), Dropout(dropout)]
        features = width
    return nn.Sequential(*layers, nn.Linear(features, classes))


def linear(features: int, classes: int, widths: Sequence[int], dropout: float) -> nn.Module:
    """Logistic regression; ``widths`` and ``dropout`` are passed over."""
    return nn.Linear(features, classes)


def build_head(config: HeadConfig, features: int, classes: int) -> nn.Module:
    """The head of ``config`` for one task."""
    module, function = HEADS[config.kind].split(":")
    build = cast(Callable[..., nn.Module], getattr(importlib.import_module(module), function))
    return build(features, classes, config.widths, config.dropout)


class Scaler(nn.Module):
    """(x - mean) / deviation by coordinate; the identity until ``fit``."""

    mean: Tensor
    scale: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))

    def fit(self, parts: Iterable[Tensor]) -> None:
        """``parts`` are the training rows in slices (n, ...). A coordinate that never varies is
        only centred."""
        count = 0
        origin: Tensor | None = None
        total = torch.zeros(self.mean.shape, dtype=torch.float64, device=self.mean.device)
        squares = torch.zeros_like(total)
        for part in parts:
            if origin is None:
                origin = part[0].clone()  # far from zero, differences keep the digits
            apart = part - origin
            total += apart.sum(0)
            squares += apart.square_().sum(0)
            count += len(part)
        assert origin is not None, "no rows"
        offset = total / count
        mean = origin + offset
        deviation = (squares / count - offset.square()).clamp_min(0).sqrt()
        varies = deviation > 1e-6 * (1e-6 + mean.abs())
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(varies, 1 / deviation, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean).mul_(self.scale)


class FusedHeads(nn.Module):
    """Views -> scaled views -> fusion -> scaled features -> one head per task."""

    def __init__(self, fusion: FusionModule, tasks: Sequence[Task], config: HeadConfig) -> None:
        super().__init__()
        assert isinstance(fusion, nn.Module)
        self.scaled = config.inputs == "standard"
        self.shapes = dict(fusion.shapes)
        self.view_scalers = nn.ModuleDict(
            {view: Scaler(*shape) for view, shape in fusion.shapes.items()} if self.scaled else {}
        )
        self.fusion = fusion
        for module in list(fusion.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.Dropout):
                    setattr(module, name, Dropout(child.p))
        self.feature_scaler = Scaler(fusion.features) if self.scaled else nn.Identity()
        self.heads = nn.ModuleList(
            build_head(config, fusion.features, len(task.classes)) for task in tasks
        )

    def scaled_views(self, views: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The views that the fusion reads, as it reads them."""
        if not self.scaled:
            return {view: views[view] for view in self.shapes}
        return {view: self.view_scalers[view](views[view]) for view in self.shapes}

    def fused(self, views: Mapping[str, Tensor]) -> Tensor:
        """Features (B, F) before they are scaled."""
        fused: Tensor = self.fusion(self.scaled_views(views))
        return fused

    def features(self, views: Mapping[str, Tensor]) -> Tensor:
        """What the heads see, (B, F)."""
        scaled: Tensor = self.feature_scaler(self.fused(views))
        return scaled

    def logits(self, features: Tensor) -> list[Tensor]:
        """(B, C) for each task."""
        return [head(features) for head in self.heads]

    def forward(self, views: Mapping[str, Tensor]) -> list[Tensor]:
        return self.logits(self.features(views))
