"""Numbers 1 to 13 of table 1: the depths reduced, extra views joined beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from llmembed.fusion.base import Fusion
from llmembed.fusion.spec import FusionSpec


class Depths(Fusion):
    """last, avg, max or concat over the primary view's depths ⊕ the extra views as they are.

    Nothing is trained; ``sigma``, ``width``, ``align`` and ``dropout`` are passed over.
    """

    def __init__(
        self,
        name: str,
        spec: FusionSpec,
        shapes: Mapping[str, tuple[int, int]],
        **settings: Any,
    ) -> None:
        super().__init__(name, spec, shapes, {})
        self.features = self._joined()

    def fuse(self, views: Mapping[str, Tensor]) -> list[Tensor]:
        return self.reduced(views)
