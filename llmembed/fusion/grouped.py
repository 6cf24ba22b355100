"""G co-occurrence fusions of equal shape side by side, their aligning maps as batched parameters.

Each computes what ``cooccurrence.CoOccurrence`` does; σ and the maps are its own. Fusions without
parameters need no twin: their features are computed once, before training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from llmembed.errors import ConfigError
from llmembed.fusion.base import reduce_depths
from llmembed.fusion.cooccurrence import CoOccurrence
from llmembed.fusion.spec import LEXICAL


def stacking_key(fusion: nn.Module) -> tuple[Any, ...]:
    """Fusions with equal keys can be stacked: equal but for σ and the values of their maps."""
    if not isinstance(fusion, CoOccurrence):
        raise ConfigError(
            f"fusion {type(fusion).__name__} has parameters but no grouped twin: "
            "train it alone, with search.grouped=false"
        )
    shapes = tuple(sorted(fusion.shapes.items()))
    return (fusion.spec, shapes, fusion.width, fusion.align, fusion.drop.p)


def stack(fusions: Sequence[Any], device: torch.device) -> StackedCoOccurrence:
    """``fusions`` of one ``stacking_key`` side by side."""
    return StackedCoOccurrence(fusions, device)


class StackedCoOccurrence:
    """``fusions`` (G of them, of one ``stacking_key``) as one.

    ``parameters``: leaf tensors, each (G, …), in the order of ``CoOccurrence.parameters()``.
    """

    def __init__(self, fusions: Sequence[CoOccurrence], device: torch.device) -> None:
        self.first = fusions[0]
        own = [list(fusion.parameters()) for fusion in fusions]
        self.parameters = [
            torch.stack([p.detach() for p in same]).to(device).requires_grad_()
            for same in zip(*own, strict=True)
        ]
        sigmas = torch.tensor([fusion.sigma for fusion in fusions], device=device)
        self.half_sigma = sigmas.view(-1, 1, 1, 1) / 2

    def keep(self, rows: Tensor) -> None:
        """Go on with the fusions at ``rows`` (G',) alone."""
        self.parameters = [p.detach()[rows].requires_grad_() for p in self.parameters]
        self.half_sigma = self.half_sigma[rows]

    def __call__(self, views: Mapping[str, Tensor], *, training: bool) -> Tensor:
        """Views (G, B, L, D) -> features (G, B, F)."""
        fusion = self.first
        values = iter(self.parameters)
        rows: list[Tensor] = []
        for view in fusion.stacked:
            if view not in fusion.maps:
                rows.append(views[view])
                continue
            for depth in range(fusion.shapes[view][0]):
                weight, bias = next(values), next(values)
                mapped = torch.baddbmm(
                    bias.unsqueeze(1), views[view][:, :, depth], weight.transpose(1, 2)
                )
                if fusion.align == "relu":
                    mapped = nn.functional.dropout(torch.relu(mapped), fusion.drop.p, training)
                rows.append(mapped.unsqueeze(2))
        stacked = torch.cat(rows, dim=2)
        products = stacked @ stacked.transpose(2, 3) / fusion.width
        pieces = [torch.tanh(products * self.half_sigma).flatten(2)]
        if fusion.spec.depths is not None:
            groups, batch = views["L"].shape[:2]
            reduced = reduce_depths(views["L"].flatten(0, 1), fusion.spec.depths)
            pieces.append(reduced.view(groups, batch, -1))
        extras = [*fusion.extras, *([LEXICAL] if LEXICAL in fusion.shapes else [])]
        pieces += [views[view].flatten(2) for view in extras]
        return torch.cat(pieces, dim=2)
