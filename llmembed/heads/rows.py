"""Where a batch's features come from: computed once and kept, or read as they are needed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmembed.errors import DataError
from llmembed.heads.memory import free_bytes
from llmembed.heads.modules import FusedHeads, Scaler

Views = Mapping[str, npt.NDArray[np.generic]]
CHUNK = 512
"""Rows that are read, fused or scored at once outside of training: few enough that what is made
on the way stays in the processor's cache."""


def parts_of(count: int) -> list[slice]:
    """``count`` rows in parts that stay in the processor's cache."""
    return [slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


def to_tensor(view: npt.NDArray[np.generic], rows: slice | npt.NDArray[np.int64]) -> Tensor:
    """float32 rows of an array or a memory map, never a view of its memory."""
    return torch.from_numpy(np.array(view[rows], dtype=np.float32))


def fitted_scaler(name: str, view: npt.NDArray[np.generic], device: torch.device) -> Scaler:
    """Fitted on the training rows ``view`` (N, L, D). Raises ``DataError``."""
    scaler = Scaler(*view.shape[1:]).to(device)
    scaler.fit(to_tensor(view, part).to(device) for part in parts_of(len(view)))
    if not bool(scaler.mean.isfinite().all()):
        raise DataError(f"the view {name!r} holds values that are not finite")
    return scaler


class Rows:
    """N texts' views behind ``model``, ready to be drawn from by number.

    With ``fit`` the model's scalers are fitted on them first. A fusion without parameters is
    computed once for all rows (and kept in bfloat16 with ``bf16``, as the heads' first matrix
    product will want it); with parameters the scaled views are kept instead. When
    that does not fit (``resident`` False) a batch's rows are read and fused each time.
    """

    def __init__(
        self,
        model: FusedHeads,
        views: Views,
        count: int,
        device: torch.device,
        *,
        resident: bool | None = None,
        fit: bool = False,
        bf16: bool = False,
    ) -> None:
        self.model, self.views, self.count, self.device = model, views, count, device
        self.once = not model.fusion.has_parameters
        if resident is None:
            values = sum(depths * width for depths, width in model.shapes.values())
            kept = int(model.fusion.features) if self.once else values
            resident = count * kept * (2 if bf16 else 4) < free_bytes(device) / 2
        self._all: Tensor | None = None
        self._views: dict[str, Tensor] = {}
        with torch.no_grad():
            if fit:
                self._fit_views()
            if resident and not self.once:
                self._views = self._scaled_views(torch.bfloat16 if bf16 else torch.float32)
            if resident and self.once:
                self._all = self._computed(model, bf16=bf16, fit=fit)
            elif fit and model.scaled:
                model.eval()
                fused = (self._fused(part).float() for part in parts_of(self.count))
                _scaler(model.feature_scaler).fit(fused)
        self._buffer = torch.empty(0) if self._all is None else self._all[:0].clone()

    def _scaled_views(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """All rows of the views (N, L, D), scaled; depth by depth in memory, as maps read them."""
        kept = {
            name: torch.empty(depths, self.count, width, dtype=dtype, device=self.device).transpose(
                0, 1
            )
            for name, (depths, width) in self.model.shapes.items()
        }
        for part in parts_of(self.count):
            for name, view in self.model.scaled_views(self._read(part)).items():
                kept[name][part] = view
        return kept

    def _fused(self, rows: slice | Tensor) -> Tensor:
        """Features of a fusion with parameters, before they are scaled."""
        if not self._views:
            return self.model.fused(self._read(rows))
        if isinstance(rows, slice):
            views = {name: view[rows] for name, view in self._views.items()}
        else:
            views = {
                name: drawn(view.transpose(0, 1), rows).transpose(0, 1)
                for name, view in self._views.items()
            }
        if not torch.is_autocast_enabled(self.device.type):
            views = {name: view.float() for name, view in views.items()}
        fused: Tensor = self.model.fusion(views)
        return fused

    def _computed(self, model: FusedHeads, *, bf16: bool, fit: bool) -> Tensor:
        """Scaled features (N, F) of all rows. To fit the scaler they are fused a first time: that
        costs less than memory for all of them in float32."""
        if fit and model.scaled:
            fused = (model.fused(self._read(part)) for part in parts_of(self.count))
            _scaler(model.feature_scaler).fit(fused)
        dtype = torch.bfloat16 if bf16 else torch.float32
        kept = torch.empty(self.count, int(model.fusion.features), dtype=dtype, device=self.device)
        for part in parts_of(self.count):
            kept[part] = model.features(self._read(part))
        return kept

    def _read(self, rows: slice | Tensor) -> dict[str, Tensor]:
        at = rows if isinstance(rows, slice) else rows.cpu().numpy()
        return {name: to_tensor(self.views[name], at).to(self.device) for name in self.model.shapes}

    def _fit_views(self) -> None:
        for name in self.model.shapes:
            scaler = fitted_scaler(name, self.views[name], self.device)
            if self.model.scaled:
                self.model.view_scalers[name].load_state_dict(scaler.state_dict())

    def features(self, rows: Tensor) -> Tensor:
        """Features (B, F) of the rows (B,), with gradients where the fusion has parameters.

        What is kept is copied into one buffer, good until the next call: new memory of that size
        costs more than the copy."""
        if self._all is not None:
            if len(self._buffer) < len(rows):
                self._buffer = self._all.new_empty(len(rows), self._all.shape[1])
            return torch.index_select(self._all, 0, rows, out=self._buffer[: len(rows)])
        if self.once:
            with torch.no_grad():
                return self.model.features(self._read(rows))
        scaled: Tensor = self.model.feature_scaler(self._fused(rows).float())
        return scaled

    def logits(self) -> list[Tensor]:
        """float32 (N, C) for each task, as in inference."""
        self.model.eval()
        with torch.inference_mode():
            pieces = [
                self.model.logits(
                    self._all[part]
                    if self._all is not None
                    else self.model.feature_scaler(self._fused(part))
                )
                for part in parts_of(self.count)
            ]
        return [torch.cat(task).float().clone() for task in zip(*pieces, strict=True)]


def drawn(view: Tensor, rows: Tensor) -> Tensor:
    """``view[:, rows]`` (L, B, D) of a view (L, N, D)."""
    depths, count, width = view.shape
    starts = torch.arange(depths, device=rows.device).unsqueeze(1) * count
    flat = view.view(depths * count, width).index_select(0, (starts + rows).flatten())
    return flat.view(depths, len(rows), width)


def _scaler(module: torch.nn.Module) -> Scaler:
    assert isinstance(module, Scaler)
    return module
