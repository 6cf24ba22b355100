"""Numbers 14 and 15 of table 1, and ours: co-occurrence of depths and views."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from llmembed.errors import ConfigError
from llmembed.fusion.base import Fusion
from llmembed.fusion.spec import PRIMARY, Align, FusionSpec


def power_normalise(products: Tensor, sigma: float) -> Tensor:
    """(1 - exp(-sigma x)) / (1 + exp(-sigma x)), which equals tanh(sigma x / 2).

    The paper prints tanh(2 sigma x) beside it; its code computes the form used here. A sigma
    meant for the printed one is four times smaller.
    """
    return torch.tanh(products * (sigma / 2))


def _default_width(widths: list[int]) -> int:
    narrowest = min(widths[1:])
    return narrowest if set(widths) != {narrowest} else max(1, narrowest // 4)


class CoOccurrence(Fusion):
    """ψ = PN(X·Xᵀ / K, σ), flattened, ⊕ what ``spec`` joins beside it.

    X (H, K) stacks the primary view's depths and the extra views, one row each. A row that is
    not K wide goes through a trained map of its own (Linear, with ``relu`` as in the authors' code
    ReLU, and dropout); one that is K wide enters as it is. K is ``width`` or, by default, the
    width of the narrowest extra view (1024 for BERT and RoBERTa beside Llama-2's 4096). Where all
    views are equally wide that would leave nothing to train, and H x H raw products say little of
    a text: then K is a quarter of their width, the ratio of the paper.

    X·Xᵀ sums K products, so for wide rows PN would sit in its flat parts from the first step and
    pass on no gradient: the mean product, X·Xᵀ / K, keeps its size whatever K is.
    """

    def __init__(
        self,
        name: str,
        spec: FusionSpec,
        shapes: Mapping[str, tuple[int, int]],
        *,
        sigma: float = 0.2,
        width: int | None = None,
        align: Align = "relu",
        dropout: float = 0.5,
    ) -> None:
        if not sigma > 0:
            raise ConfigError(f"fusion {name!r}: sigma is {sigma}, expected a number above 0")
        if width is not None and width < 1:
            raise ConfigError(f"fusion {name!r}: width is {width}, expected 1 or more")
        if align not in ("relu", "linear"):
            raise ConfigError(f"fusion {name!r}: align is {align!r}, expected 'relu' or 'linear'")
        if not 0 <= dropout < 1:
            raise ConfigError(f"fusion {name!r}: dropout is {dropout}, expected 0 <= dropout < 1")
        self_settings = {"sigma": sigma, "width": width, "align": align, "dropout": dropout}
        super().__init__(name, spec, shapes, self_settings)
        self.stacked = (PRIMARY, *spec.rows(shapes))
        self.sigma = sigma
        self.width = width or _default_width([self.shapes[view][1] for view in self.stacked])
        self.align = align
        self.rows = sum(self.shapes[view][0] for view in self.stacked)
        self.maps = nn.ModuleDict(
            {
                view: nn.ModuleList(nn.Linear(own, self.width) for _ in range(depths))
                for view in self.stacked
                for depths, own in [self.shapes[view]]
                if own != self.width
            }
        )
        self.drop = nn.Dropout(dropout)
        self.features = self.rows**2 + self._joined()

    def aligned(self, views: Mapping[str, Tensor]) -> Tensor:
        """X, (B, H, K). A view's maps are one batched product, and what follows is done once for
        all of them: the matrices are small, and calls are what they cost."""
        own = [view for view in self.stacked if view in self.maps]
        if not own:
            return torch.cat([views[view] for view in self.stacked], dim=1)
        mapped = torch.cat([self._mapped(view, views[view]) for view in own])
        if self.align == "relu":
            mapped = self.drop(torch.relu(mapped))
        mapped = mapped.transpose(0, 1)
        if own == list(self.stacked):
            return mapped
        depths = [self.shapes[view][0] for view in own]
        rows = dict(zip(own, torch.split(mapped, depths, dim=1), strict=True))
        return torch.cat([rows.get(view, views[view]) for view in self.stacked], dim=1)

    def _mapped(self, view: str, values: Tensor) -> Tensor:
        """(B, L, D) -> (L, B, K)."""
        maps = [each for each in self.maps[view].children() if isinstance(each, nn.Linear)]
        weight = torch.stack([each.weight.T for each in maps])
        bias = torch.stack([each.bias for each in maps]).unsqueeze(1)
        return torch.baddbmm(bias, values.transpose(0, 1), weight)

    def fuse(self, views: Mapping[str, Tensor]) -> list[Tensor]:
        stacked = self.aligned(views)
        products = stacked @ stacked.transpose(1, 2) / self.width
        return [power_normalise(products, self.sigma).flatten(1), *self.reduced(views)]
