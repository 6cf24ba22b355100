"""What every fusion has in common: checked views in, one row of features out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from llmembed.errors import ConfigError
from llmembed.fusion.spec import LEXICAL, PRIMARY, FusionSpec, Reduce


def flat_width(shape: tuple[int, int]) -> int:
    """L times D."""
    return shape[0] * shape[1]


def reduce_depths(view: Tensor, how: Reduce) -> Tensor:
    """(B, L, D) -> (B, D), for ``concat`` (B, L * D). Depth 1, the last layer, stands first."""
    if how == "last":
        return view[:, 0]
    if how == "avg":
        return view.mean(dim=1)
    if how == "max":
        return view.amax(dim=1)
    return view.flatten(1)


class Fusion(nn.Module):
    """Views (B, L, D) by name -> features (B, F).

    Subclasses set ``features`` by calling ``_joined`` and say in ``fuse`` what they compute; the
    base checks shapes and joins the lexical view at the end. ``settings`` rebuilds the same
    module through ``build_fusion(**settings)``.
    """

    def __init__(
        self,
        name: str,
        spec: FusionSpec,
        shapes: Mapping[str, tuple[int, int]],
        settings: Mapping[str, Any],
    ) -> None:
        super().__init__()
        used = dict.fromkeys((PRIMARY, *spec.rows(shapes), *spec.extras(shapes)))
        if LEXICAL in shapes:
            used[LEXICAL] = None
        self.name = name
        self.spec = spec
        self.shapes = {view: (int(shapes[view][0]), int(shapes[view][1])) for view in used}
        self.settings: dict[str, Any] = {
            "name": name,
            "shapes": {view: list(shape) for view, shape in self.shapes.items()},
            **settings,
        }
        self.extras = spec.extras(shapes)
        self.features = 0

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views that are read."""
        return tuple(self.shapes)

    @property
    def has_parameters(self) -> bool:
        """Whether anything here is trained; if not, features can be computed once."""
        return any(True for _ in self.parameters())

    def _joined(self) -> int:
        """Width of the reduced primary view, the extras beside it and the lexical view."""
        depths, width = self.shapes[PRIMARY]
        reduced = {None: 0, "concat": depths * width}.get(self.spec.depths, width)
        lexical = flat_width(self.shapes[LEXICAL]) if LEXICAL in self.shapes else 0
        return reduced + sum(flat_width(self.shapes[view]) for view in self.extras) + lexical

    def fuse(self, views: Mapping[str, Tensor]) -> list[Tensor]:
        """The pieces (B, .) of the features, in order, without the lexical view."""
        raise NotImplementedError

    def reduced(self, views: Mapping[str, Tensor]) -> list[Tensor]:
        """The reduced primary view, if any, and the extras beside it."""
        pieces = []
        if self.spec.depths is not None:
            pieces.append(reduce_depths(views[PRIMARY], self.spec.depths))
        return pieces + [views[view].flatten(1) for view in self.extras]

    def forward(self, views: Mapping[str, Tensor]) -> Tensor:
        """Raises ``ConfigError`` when a view is missing or not of the shape it was built for."""
        for view, shape in self.shapes.items():
            if view not in views:
                raise ConfigError(f"fusion {self.name!r} misses the view {view!r}")
            if views[view].ndim != 3 or tuple(views[view].shape[1:]) != shape:
                raise ConfigError(
                    f"fusion {self.name!r} was built for the view {view!r} with "
                    f"(depths, width) = {shape}: got a tensor of shape {tuple(views[view].shape)}"
                )
        pieces = self.fuse(views)
        if LEXICAL in self.shapes:
            pieces = [*pieces, views[LEXICAL].flatten(1)]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)
