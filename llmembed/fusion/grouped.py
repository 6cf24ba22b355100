"""G co-occurrence fusions of equal shape side by side, the backward pass by hand.

Each computes what ``cooccurrence.CoOccurrence`` does; σ and the maps are its own. Fits that read
the same batch (of one seed) share it: their maps of one depth are one wide matrix product. Fusions
without parameters need no twin: their features are computed once, before training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from llmembed.fusion.cooccurrence import CoOccurrence


def stacking_key(fusion: nn.Module) -> tuple[Any, ...] | None:
    """Fusions with equal keys can be stacked: equal but for σ and the values of their maps. None:
    this kind of fusion has no twin here, or needs none."""
    if not isinstance(fusion, CoOccurrence) or not fusion.has_parameters:
        return None
    shapes = tuple(sorted(fusion.shapes.items()))
    return (fusion.spec, shapes, fusion.width, fusion.align, fusion.drop.p)


class Run(Protocol):
    """Fits ``start`` to ``stop``, which read one batch. ``views``: name -> (L, B, D), depth by
    depth; ``mask`` (H, B, K): what dropout multiplies the H mapped rows by."""

    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...
    @property
    def views(self) -> Mapping[str, Tensor]: ...
    @property
    def mask(self) -> Tensor | None: ...


def stack(fusions: Sequence[Any], device: torch.device, low: torch.dtype) -> StackedCoOccurrence:
    """``fusions`` of one ``stacking_key`` side by side; matrix products are taken in ``low``."""
    return StackedCoOccurrence(fusions, device, low)


class StackedCoOccurrence:
    """``fusions`` (G of them, of one ``stacking_key``) as one.

    ``parameters``: for each mapped view its weights (G, L, K, D), then its biases (G, L, K),
    float32; ``gradients`` likewise, filled by ``backward``. ``cut``: dropout in 256ths; ``drawn``:
    shape (H, K) of what it falls on, for one row of a batch. ``products``: P, how many of the
    features depend on the parameters; they stand first.
    """

    def __init__(
        self, fusions: Sequence[CoOccurrence], device: torch.device, low: torch.dtype
    ) -> None:
        self.first, self.low = fusions[0], low
        self.mapped = [view for view in self.first.stacked if view in self.first.maps]
        self.depths = [self.first.shapes[view][0] for view in self.mapped]
        self.parameters: list[Tensor] = []
        for view in self.mapped:
            own = [list(f.maps[view].children()) for f in fusions]
            for name in ("weight", "bias"):
                values = [torch.stack([getattr(m, name).detach() for m in maps]) for maps in own]
                self.parameters.append(torch.stack(values).to(device))
        sigmas = torch.tensor([fusion.sigma for fusion in fusions], device=device)
        self.slope = sigmas.unsqueeze(1) / (2 * self.first.width)
        relu = self.first.align == "relu"
        self.cut = min(255, round(self.first.drop.p * 256)) if relu else 0
        self.drawn = (sum(self.depths), self.first.width)
        self.products = self.first.rows**2
        self.reads: Sequence[str] = self.first.stacked
        self._allocate()

    def _allocate(self) -> None:
        self.gradients = [torch.empty_like(p) for p in self.parameters]
        # Depths stand first in the copies that matrix products read: they are the batch.
        self._low = [torch.empty_like(p.transpose(0, 1), dtype=self.low) for p in self.parameters]
        self._low = [p.contiguous() for p in self._low]
        self.refresh()

    def refresh(self) -> None:
        """Take over new parameters into the copies that matrix products read."""
        for copy, p in zip(self._low, self.parameters, strict=True):
            copy.copy_(p.transpose(0, 1))

    def keep(self, rows: Tensor) -> None:
        """Go on with the fusions at ``rows`` (G',) alone."""
        self.parameters = [p[rows] for p in self.parameters]
        self.slope = self.slope[rows]
        self._allocate()

    def values(self, row: int) -> list[Tensor]:
        """The parameters of one fusion, in the order of ``CoOccurrence.parameters()``."""
        found: list[Tensor] = []
        for at, depths in enumerate(self.depths):
            weight, bias = (p[row] for p in self.parameters[2 * at : 2 * at + 2])
            for depth in range(depths):
                found += [weight[depth], bias[depth]]
        return found

    def forward(self, runs: Sequence[Run]) -> Tensor:
        """The features (G, B, P) that depend on the parameters, float32."""
        self._saved: list[tuple[Run, Tensor, Tensor, Tensor]] = []
        return torch.cat([self._forward(run) for run in runs])

    def _forward(self, run: Run) -> Tensor:
        fusion, count = self.first, run.stop - run.start
        size = next(iter(run.views.values())).shape[1]
        width = fusion.width
        mapped = torch.empty(
            self.drawn[0], size, count * width, dtype=self.low, device=self.slope.device
        )
        start = 0
        for at, (view, depths) in enumerate(zip(self.mapped, self.depths, strict=True)):
            weight, bias = self._of(run, at)
            out = mapped[start : start + depths]
            torch.baddbmm(bias.unsqueeze(1), run.views[view], weight.transpose(1, 2), out=out)
            start += depths
        each = mapped.view(-1, size, count, width)
        if fusion.align == "relu":
            mapped.clamp_min_(0)
            if run.mask is not None:
                each.mul_(run.mask.unsqueeze(2))
        # Small products want their matrices in one piece.
        stacked = self._beside(run, each).flatten(1, 2).transpose(0, 1).contiguous()
        products = torch.bmm(stacked, stacked.transpose(1, 2))
        by_fit = products.view(size, count, -1).transpose(0, 1)
        slope = self.slope[run.start : run.stop].unsqueeze(2)
        normal = torch.tanh(by_fit.float() * slope)
        self._saved.append((run, each, stacked, normal))
        return normal

    def _of(self, run: Run, at: int) -> list[Tensor]:
        """Weights (L, n * K, D) and biases (L, n * K) of a run's n fits, for the view ``at``."""
        own = self._low[2 * at : 2 * at + 2]
        return [p[:, run.start : run.stop].flatten(1, 2) for p in own]

    def _beside(self, run: Run, mapped: Tensor) -> Tensor:
        """The mapped rows (H', B, n, K) and those that enter as they are, in order."""
        if len(self.mapped) == len(self.first.stacked):
            return mapped
        rows = dict(zip(self.mapped, torch.split(mapped, self.depths), strict=True))
        count = mapped.shape[2]
        return torch.cat(
            [
                rows[view]
                if view in rows
                else run.views[view].unsqueeze(2).expand(-1, -1, count, -1)
                for view in self.first.stacked
            ]
        )

    def backward(self, d: Tensor) -> None:
        """Fill ``gradients`` from the loss's derivative by what ``forward`` gave (G, B, P)."""
        for run, mapped, stacked, normal in self._saved:
            slope = self.slope[run.start : run.stop].unsqueeze(2)
            through = normal.square().neg_().add_(1).mul_(d[run.start : run.stop]).mul_(slope)
            rows = stacked.shape[1]
            products = through.transpose(0, 1).reshape(-1, rows, rows)
            both = products + products.transpose(1, 2)
            if run.mask is not None and self.first.align == "relu":
                both.mul_(256 / (256 - self.cut))  # for all that dropout let through
            both = both.to(self.low)
            towards = torch.bmm(both, stacked).view(*mapped.shape[1:3], rows, -1)
            self._into_gradients(run, mapped, towards.permute(2, 0, 1, 3))

    def _into_gradients(self, run: Run, mapped: Tensor, towards: Tensor) -> None:
        """``towards`` (H, B, n, K): the derivative by all rows, mapped or not."""
        first = 0
        at = 0
        done = 0
        for view in self.first.stacked:
            depths = self.first.shapes[view][0]
            if view in self.mapped:
                values = mapped[done : done + depths]
                part = towards[first : first + depths].contiguous()
                if self.first.align == "relu":
                    # What ReLU or dropout silenced is 0.
                    part = torch.ops.aten.threshold_backward(part, values, 0)
                flat = part.flatten(2)
                weights = torch.bmm(flat.transpose(1, 2), run.views[view])
                shape = (depths, run.stop - run.start, self.first.width)
                cut = slice(run.start, run.stop)
                self.gradients[2 * at][cut].copy_(weights.view(*shape, -1).transpose(0, 1))
                biases = flat.sum(1, dtype=torch.float32)
                self.gradients[2 * at + 1][cut].copy_(biases.view(shape).transpose(0, 1))
                at += 1
                done += depths
            first += depths
