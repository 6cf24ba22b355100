"""Names beside points, placed so that they cover neither one another nor a point."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in pixels."""

_DIRECTIONS = ((1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1), (-1, 0))
_DISTANCES = (9.0, 18.0, 32.0, 50.0, 72.0)


def place_labels(
    axes: Axes,
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    colours: Sequence[str],
    *,
    lines: Sequence[Sequence[tuple[float, float]]] = (),
    font_size: float = 9.0,
) -> list[Box]:
    """Write each name near its point (data coordinates), nearest free place first and off the
    ``lines``; a thin line leads to a name that does not stand straight beside its point. The
    axes' limits must stand. Returns the boxes taken, in pixels."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    bounds = (frame.x0, frame.y0, frame.x1, frame.y1)
    marks = np.asarray(axes.transData.transform(np.array(points).reshape(-1, 2)))
    unit = figure.dpi / 72
    taken = [_around(x, y, 6 * unit) for x, y in marks]
    for line in lines:
        taken += _along(np.asarray(axes.transData.transform(np.array(line))), 2 * unit)
    placed: list[Box] = []
    for (x, y), name, colour in zip(marks, names, colours, strict=True):
        text = axes.text(0, 0, name, fontsize=font_size, color=colour, zorder=5, parse_math=False)
        extent = text.get_window_extent()
        width, height = extent.width, extent.height
        spot, box, beside = _best_spot(x, y, width, height, unit, bounds, [*taken, *placed])
        placed.append(box)
        inverse = axes.transData.inverted()
        text.set_position(tuple(inverse.transform(spot)))
        text.set_verticalalignment("bottom")
        if not beside:
            near = (np.clip(x, box[0], box[2]), np.clip(y, box[1], box[3]))
            ends = inverse.transform(np.array([(x, y), near]))
            axes.plot(ends[:, 0], ends[:, 1], color="#999999", lw=0.7, zorder=1)
    return placed


def _best_spot(
    x: float,
    y: float,
    width: float,
    height: float,
    unit: float,
    bounds: Box,
    taken: Sequence[Box],
) -> tuple[tuple[float, float], Box, bool]:
    """Lower left corner and box of the first free spot, else of the least bad, and whether it is
    straight beside the point."""
    found: list[tuple[float, tuple[float, float], Box, bool]] = []
    for distance in _DISTANCES:
        for across, up in _DIRECTIONS:
            reach = distance * unit * (0.75 if across and up else 1.0)
            left = x + across * reach - (0, width / 2, width)[(across == 0) + 2 * (across < 0)]
            bottom = y + up * reach - (0, height / 2, height)[(up == 0) + 2 * (up < 0)]
            box = (left, bottom, left + width, bottom + height)
            beside = up == 0 and distance == _DISTANCES[0]
            bad = sum(_overlap(box, other) for other in taken) + _outside(box, bounds)
            if bad == 0:
                return (left, bottom), box, beside
            found.append((bad, (left, bottom), box, beside))
    _, spot, box, beside = min(found, key=lambda candidate: candidate[0])
    return spot, box, beside


def _along(corners: npt.NDArray[np.float64], radius: float) -> list[Box]:
    """Boxes of ``radius`` close enough to cover the polyline through ``corners`` (N, 2)."""
    boxes: list[Box] = []
    for start, end in pairwise(corners):
        steps = max(2, int(np.hypot(*(end - start)) / radius))
        boxes += [_around(x, y, radius) for x, y in np.linspace(start, end, steps)]
    return boxes


def _around(x: float, y: float, radius: float) -> Box:
    return x - radius, y - radius, x + radius, y + radius


def _overlap(a: Box, b: Box) -> float:
    """Area both cover."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return max(wide, 0.0) * max(high, 0.0)


def _outside(box: Box, bounds: Box) -> float:
    """Area of ``box`` outside ``bounds``."""
    return (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, bounds)
