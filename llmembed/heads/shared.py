"""What the fits of a group read: views scaled once, features fused once, batches by row number."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from llmembed.heads.config import HeadConfig
from llmembed.heads.modules import FusedHeads, FusionModule, Scaler, dropout_mask
from llmembed.heads.rows import drawn, fitted_scaler, parts_of, to_tensor
from llmembed.heads.stacked import KINDS, DropoutDraws


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One fusion with its heads, to be trained on ``views`` (name -> (N, L, D) arrays).

    ``stacking``: for a fusion with parameters, equal where fusions can be stacked, None where they
    can't (``llmembed.fusion.grouped.stacking_key``).
    """

    fusion: FusionModule
    views: Mapping[str, Any]
    valid_views: Mapping[str, Any]
    config: HeadConfig
    stacking: Hashable = None


@dataclass(frozen=True, kw_only=True)
class Run:
    """Fits ``start`` to ``stop`` of a group, which read one batch of ``views`` (L, B, D) and whose
    mapped rows one ``mask`` of dropout multiplies."""

    start: int
    stop: int
    views: Mapping[str, Tensor]
    mask: Tensor | None


class StackedFusion(Protocol):
    """G fusions of equal shape, with parameters (G, …), side by side. The first P = ``products``
    features depend on the parameters and on the views ``reads``, the others on views alone."""

    parameters: list[Tensor]
    gradients: list[Tensor]
    cut: int
    drawn: tuple[int, int]
    products: int
    reads: Sequence[str]

    def keep(self, rows: Tensor) -> None: ...

    def refresh(self) -> None: ...

    def values(self, row: int) -> list[Tensor]: ...

    def forward(self, runs: Sequence[Run]) -> Tensor: ...

    def backward(self, d: Tensor) -> None: ...


def can_be_stacked(fit: Fit) -> bool:
    """Whether the backward pass of its fusion, heads and loss is written out by hand: that of the
    focal loss is not."""
    if fit.config.focal:
        return False
    return fit.config.kind in KINDS and not (fit.fusion.has_parameters and fit.stacking is None)


def shape_key(fit: Fit, count: int) -> Hashable:
    """Fits with equal keys can be trained side by side on ``count`` rows; the key of one that can
    only be trained alone equals no other."""
    if not can_be_stacked(fit):
        return object()
    c = fit.config
    own = (fit.stacking, _identities(fit)) if fit.fusion.has_parameters else None
    return (
        fit.fusion.features,
        (c.kind, c.widths, c.batch_for(count), c.epochs, c.patience),
        (c.schedule, c.inputs, c.precision, c.calibrate),
        own,
    )


def fusion_key(fit: Fit) -> str:
    """Fits with equal keys have equal features, as long as the fusion has no parameters."""
    settings = json.dumps(cast(Any, fit.fusion).settings, sort_keys=True)
    return f"{settings} {_identities(fit)} {fit.config.inputs}"


def _identities(fit: Fit) -> tuple[int, ...]:
    return tuple(id(fit.views[name]) for name in fit.fusion.shapes)


def bytes_needed(fit: Fit, classes: Sequence[int]) -> int:
    """Of one fit's weights, gradients, moments and low-precision copies."""
    sizes = [fit.fusion.features, *(fit.config.widths if fit.config.kind == "mlp" else ())]
    hidden = sum(math.prod(pair) for pair in itertools.pairwise(sizes))
    own = sum(p.numel() for p in cast(nn.Module, fit.fusion).parameters())
    return 20 * (own + sum(hidden + sizes[-1] * count for count in classes))


class Pool:
    """Scaled views by array, shared by every group of a sweep in this process."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._scalers: dict[int, Scaler] = {}
        self._views: dict[tuple[int, int, bool], Tensor] = {}
        self._arrays: list[Any] = []  # kept alive, so that an id stays an array's own

    def scaler(self, name: str, view: Any) -> Scaler:
        """Fitted on the training rows ``view`` (N, L, D). Raises ``DataError``."""
        if id(view) not in self._scalers:
            self._scalers[id(view)] = fitted_scaler(name, view, self.device)
            self._arrays.append(view)
        return self._scalers[id(view)]

    def scaled(self, name: str, view: Any, fitted_on: Any, *, scale: bool) -> Tensor:
        """``view`` as float32 on the device, scaled by what ``fitted_on`` gave."""
        key = (id(view), id(fitted_on), scale)
        if key not in self._views:
            scaler = self.scaler(name, fitted_on)
            kept = torch.empty(view.shape, device=self.device)
            for part in parts_of(len(view)):
                rows = to_tensor(view, part).to(self.device)
                kept[part] = scaler(rows) if scale else rows
            self._views[key] = kept
            self._arrays.append(view)
        return self._views[key]


class SharedRows:
    """Rows of a group's fits, by fit and row number.

    Fusions without parameters: features (U, N, F) of the U distinct ones, in ``low``. With
    parameters: the scaled views, read anew for each batch. The models' scalers are set.
    """

    def __init__(
        self,
        fits: Sequence[Fit],
        models: Sequence[FusedHeads],
        pool: Pool,
        low: torch.dtype,
        *,
        parametric: bool,
    ) -> None:
        self.fits, self.models, self.pool, self.low = fits, models, pool, low
        self.parametric = parametric
        self._of: list[int] = []
        self._valid: list[Tensor] = []
        self._scales: list[Tensor] = []
        features: list[Tensor] = []
        seen: dict[str, tuple[int, FusedHeads]] = {}
        for fit, model in zip(fits, models, strict=True):
            key = fusion_key(fit)
            if not parametric and key in seen:
                which, twin = seen[key]
                model.view_scalers.load_state_dict(twin.view_scalers.state_dict())
                model.feature_scaler.load_state_dict(twin.feature_scaler.state_dict())
                self._of.append(which)
                continue
            fused = self._fit_scalers(fit, model)
            self._of.append(len(seen))
            seen[key + str(len(seen)) * parametric] = (len(seen), model)
            if not parametric:
                kept = torch.empty(fused.shape, dtype=low, device=pool.device)
                for part in parts_of(len(fused)):
                    kept[part] = model.feature_scaler(fused[part])
                features.append(kept)
                fused_valid = self._fuse(model, self._views(fit, valid=True))
                self._valid.append(model.feature_scaler(fused_valid))
        if len(features) == 1:
            [self._features] = features
        else:
            self._features = torch.cat(features) if features else torch.empty(0)
        self.count = len(next(iter(fits[0].views.values())))
        self.of = torch.tensor(self._of, device=pool.device)
        self._kept: dict[str, Tensor] = {}
        self._mean = torch.empty(0)
        self._scale: Tensor | None = None
        self._constant: Tensor | None = None
        if parametric and models[0].scaled:
            scalers = [cast(Scaler, model.feature_scaler) for model in models]
            self._mean = torch.stack([s.mean for s in scalers]).unsqueeze(1)
            self._scale = torch.stack([s.scale for s in scalers]).unsqueeze(1)

    def _views(self, fit: Fit, *, valid: bool = False) -> dict[str, Tensor]:
        views = fit.valid_views if valid else fit.views
        scale = fit.config.inputs == "standard"
        return {
            name: self.pool.scaled(name, views[name], fit.views[name], scale=scale)
            for name in fit.fusion.shapes
        }

    def _fuse(self, model: FusedHeads, views: Mapping[str, Tensor]) -> Tensor:
        """Scaled views -> features (N, F), in parts."""
        count = len(next(iter(views.values())))
        fused = torch.empty(count, model.fusion.features, device=self.pool.device)
        for part in parts_of(count):
            fused[part] = model.fusion({name: view[part] for name, view in views.items()})
        return fused

    def _fit_scalers(self, fit: Fit, model: FusedHeads) -> Tensor:
        """Features (N, F) of the training rows, unscaled."""
        fused = self._fuse(model, self._views(fit))
        if model.scaled:
            for name in fit.fusion.shapes:
                state = self.pool.scaler(name, fit.views[name]).state_dict()
                model.view_scalers[name].load_state_dict(state)
            cast(Scaler, model.feature_scaler).fit(fused[part] for part in parts_of(len(fused)))
        return fused

    def features(self, active: Tensor, rows: Tensor) -> Tensor:
        """(G, B, F) of the fits ``active`` (G,) at their ``rows`` (G, B)."""
        at = self.of[active].unsqueeze(1) * self.count + rows
        drawn = self._features.index_select(0, at.flatten())
        return drawn.view(*rows.shape, drawn.shape[1])

    def batches(
        self, fusion: StackedFusion, active: Tensor, rows: Tensor, draws: DropoutDraws
    ) -> list[Run]:
        """What a fusion with parameters reads for the fits ``active`` (G,) at ``rows`` (G, B):
        one batch for each run of fits of one seed."""
        runs: list[Run] = []
        seeds = [self.fits[i].config.seed for i in active.tolist()]
        made: dict[int, tuple[dict[str, Tensor], Tensor | None]] = {}
        for seed, group in itertools.groupby(enumerate(seeds), key=lambda each: each[1]):
            members = [row for row, _ in group]
            first, size = members[0], rows.shape[1]
            if seed not in made:  # fits of one seed and several rates stand in several runs
                mask = None
                if fusion.cut:
                    mapped, width = fusion.drawn
                    octets = draws.of_row(first, mapped * size * width).view(mapped, size, width)
                    mask = dropout_mask(octets, fusion.cut, self.low)
                kept = self._low_views(fusion.reads)
                made[seed] = {n: drawn(view, rows[first]) for n, view in kept.items()}, mask
            views, mask = made[seed]
            runs.append(Run(start=first, stop=members[-1] + 1, views=views, mask=mask))
        return runs

    def _low_views(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The scaled views (L, N, D) that the products of a fusion with parameters read."""
        if not self._kept:
            views = self._views(self.fits[0])
            self._kept = {
                name: views[name].transpose(0, 1).to(self.low).contiguous() for name in names
            }
        return self._kept

    def joined(self, fused: Tensor, active: Tensor, rows: Tensor, runs: Sequence[Run]) -> Tensor:
        """Features (G, B, F) as the heads read them, from the first P of them (G, B, P) and from
        those that no parameter changes, which are computed once."""
        count = fused.shape[2]
        if self._constant is None:
            model = self.models[0]
            if count == model.fusion.features:
                self._constant = torch.empty(0, 0, dtype=self.low, device=rows.device)
            else:
                whole = model.feature_scaler(self._fuse(model, self._views(self.fits[0])))
                self._constant = whole[:, count:].to(self.low, copy=True)
        if self._scale is not None:
            fused = (fused - self._mean[active, :, :count]).mul_(self._scale[active, :, :count])
        if not self._constant.shape[1]:
            return fused.to(self.low)
        features = torch.empty(
            *rows.shape, count + self._constant.shape[1], dtype=self.low, device=rows.device
        )
        features[:, :, :count] = fused
        for run in runs:  # its fits read the same rows
            read = self._constant.index_select(0, rows[run.start])
            features[run.start : run.stop, :, count:] = read
        return features

    def unscaled(self, d: Tensor, active: Tensor) -> Tensor:
        """The derivative by features (G, B, P) from the one by scaled features."""
        return d if self._scale is None else d * self._scale[active, :, : d.shape[2]]

    def valid(self, number: int, model: FusedHeads) -> Tensor:
        """Scaled features (N, F) of the validation rows, float32."""
        if not self.parametric:
            return self._valid[self._of[number]]
        fused: Tensor = model.feature_scaler(
            self._fuse(model, self._views(self.fits[number], valid=True))
        )
        return fused
