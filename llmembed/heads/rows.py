"""Where a batch's features come from: computed once and kept, or read as they are needed."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from llmembed.errors import DataError
from llmembed.heads.modules import FusedHeads, Scaler

Views = Mapping[str, npt.NDArray[np.generic]]
CHUNK = 4096
"""Rows that are fused or scored at once outside of training."""


def to_tensor(view: npt.NDArray[np.generic], rows: slice | npt.NDArray[np.int64]) -> Tensor:
    """float32 rows of an array or a memory map, never a view of its memory."""
    return torch.from_numpy(np.array(view[rows], dtype=np.float32))


def free_bytes(device: torch.device) -> int:
    """Free memory of the device, as far as the system tells."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Rows:
    """N texts' views behind ``model``, ready to be drawn from by number.

    With ``fit`` the model's scalers are fitted on them first. A fusion without parameters is
    computed once for all rows; with parameters the scaled views are kept instead. When
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
    ) -> None:
        self.model, self.views, self.count, self.device = model, views, count, device
        self.once = not model.fusion.has_parameters
        if resident is None:
            width = sum(depths * width for depths, width in model.shapes.values())
            width = max(width, int(model.fusion.features)) if self.once else width
            resident = 4 * count * width < free_bytes(device) / 2
        self._all: Tensor | None = None
        self._views: dict[str, Tensor] = {}
        with torch.no_grad():
            if fit:
                self._fit_views()
            if resident and self.once:
                self._all = torch.cat([model.fused(self._read(part)) for part in self._parts()])
            elif resident:
                self._views = {
                    name: to_tensor(views[name], slice(None)).to(device) for name in model.shapes
                }
            if fit:
                self._fit_features()
            if self._all is not None:
                self._all = model.feature_scaler(self._all)

    def _parts(self) -> list[slice]:
        starts = range(0, self.count, CHUNK)
        return [slice(start, min(start + CHUNK, self.count)) for start in starts]

    def _read(self, rows: slice | Tensor) -> dict[str, Tensor]:
        if self._views:
            if isinstance(rows, slice):
                return {name: view[rows] for name, view in self._views.items()}
            return {name: view.index_select(0, rows) for name, view in self._views.items()}
        at = rows if isinstance(rows, slice) else rows.cpu().numpy()
        return {name: to_tensor(self.views[name], at).to(self.device) for name in self.model.shapes}

    def _fit_views(self) -> None:
        for name in self.model.shapes:
            view = self.views[name]
            for part in self._parts():
                if not np.isfinite(view[part]).all():
                    raise DataError(f"the view {name!r} holds values that are not finite")
            if self.model.scaled:

                def rows(start: int, stop: int, view: npt.NDArray[np.generic] = view) -> Tensor:
                    return to_tensor(view, slice(start, stop)).to(self.device)

                _scaler(self.model.view_scalers[name]).fit(rows, self.count, CHUNK)

    def _fit_features(self) -> None:
        if not self.model.scaled:
            return
        self.model.eval()

        def fused(start: int, stop: int) -> Tensor:
            if self._all is not None:
                return self._all[start:stop]
            return self.model.fused(self._read(slice(start, stop)))

        _scaler(self.model.feature_scaler).fit(fused, self.count, CHUNK)

    def features(self, rows: Tensor) -> Tensor:
        """Features (B, F) of the rows (B,), with gradients where the fusion has parameters."""
        if self._all is not None:
            return self._all.index_select(0, rows)
        if self.once:
            with torch.no_grad():
                return self.model.features(self._read(rows))
        return self.model.features(self._read(rows))

    def logits(self) -> list[Tensor]:
        """float32 (N, C) for each task, as in inference."""
        self.model.eval()
        with torch.inference_mode():
            pieces = [
                self.model.logits(
                    self._all[part]
                    if self._all is not None
                    else self.model.features(self._read(part))
                )
                for part in self._parts()
            ]
        return [torch.cat(task).float().clone() for task in zip(*pieces, strict=True)]


def _scaler(module: torch.nn.Module) -> Scaler:
    assert isinstance(module, Scaler)
    return module
