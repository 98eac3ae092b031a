"""The marks of one series on the axes: a line with its band, bars, points with intervals, a histogram, a scatter,
a tree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from vestige.report.svg import Ink, series_ink

Array = npt.NDArray[np.float64]

# Dash patterns in line widths, each with its likeness in SVG units for a legend.
_DASHES = (("solid", ""), ((0, (5, 2)), "9 4"), ((0, (1.2, 1.6)), "2 3"), ((0, (6, 2, 1.2, 2)), "11 4 2 4"))
_MARKERS = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"), ("P", "✚"))


@dataclass(frozen=True)
class Marks:
    """A series on the axes: numeric positions, values and bounds, with NaN where nothing was measured."""

    x: Array
    y: Array
    low: Array | None
    high: Array | None
    index: int
    count: int
    x_low: Array | None = None
    x_high: Array | None = None

    @property
    def colour(self) -> str:
        """Placeholder colour of the series."""
        return series_ink(self.index).value


def legend_dash(index: int) -> str:
    """SVG dash array of the ``index``-th series; empty for a solid line."""
    return _DASHES[index % len(_DASHES)][1]


def legend_marker(index: int) -> str:
    """Character that looks like the marker of the ``index``-th series."""
    return _MARKERS[index % len(_MARKERS)][1]


def line(axes: Axes, m: Marks, places: bool) -> None:
    """A line with its band; up to twelve measured points are marked, so that one between gaps is seen."""
    dash = _DASHES[m.index % len(_DASHES)][0]
    if m.low is not None and m.high is not None:
        axes.fill_between(m.x, m.low, m.high, color=m.colour, alpha=0.16, linewidth=0)
    few = int(np.isfinite(m.y).sum()) <= 12
    if m.y.size == 1:
        _intervals(axes, m.x, m.low, m.high, m.colour)
    axes.plot(m.x, m.y, color=m.colour, linewidth=2, linestyle=dash, marker="o" if few else "", markersize=5)


def bars(axes: Axes, m: Marks, places: bool) -> None:
    """Bars side by side with those of the other series."""
    width = 0.78 / m.count
    x = m.x + (m.index - (m.count - 1) / 2) * width
    measured = np.isfinite(m.y)
    axes.bar(x[measured], m.y[measured], width=width * 0.92, color=m.colour, linewidth=0)
    _intervals(axes, x, m.low, m.high, Ink.TEXT.value)


def points(axes: Axes, m: Marks, places: bool) -> None:
    """Points with intervals."""
    # Side by side on a categorical axis, as their intervals would hide each other.
    x = m.x + (m.index - (m.count - 1) / 2) * min(0.2, 0.8 / m.count) if places else m.x
    _intervals(axes, x, m.low, m.high, m.colour)
    dense = m.x.size > 150
    axes.plot(
        x,
        m.y,
        linestyle="none",
        marker=_MARKERS[m.index % len(_MARKERS)][0],
        color=m.colour,
        markersize=4 if dense else 6.5,
        alpha=0.55 if dense else 1.0,
        markeredgewidth=0,
    )


def scatter(axes: Axes, m: Marks, places: bool) -> None:
    """Points with intervals both ways."""
    if m.low is not None and m.high is not None:
        axes.vlines(m.x, m.low, m.high, color=m.colour, linewidth=1.0, alpha=0.55)
    if m.x_low is not None and m.x_high is not None:
        axes.hlines(m.y, m.x_low, m.x_high, color=m.colour, linewidth=1.0, alpha=0.55)
    marker = _MARKERS[m.index % len(_MARKERS)][0]
    axes.plot(m.x, m.y, linestyle="none", marker=marker, color=m.colour, markersize=7, markeredgewidth=0, zorder=3)


def tree(axes: Axes, m: Marks, places: bool) -> None:
    """Brackets that meet, with gaps between them."""
    axes.plot(m.x, m.y, color=m.colour, linewidth=1.6, solid_joinstyle="miter")


def histogram(axes: Axes, m: Marks, places: bool) -> None:
    """Steps over bins given by edges or centres."""
    y = np.nan_to_num(m.y)
    edges = m.x if m.x.size == y.size + 1 else _edges(m.x)
    axes.stairs(y, edges, fill=True, color=m.colour, alpha=0.22, linewidth=0)
    axes.stairs(y, edges, color=m.colour, linewidth=1.8, linestyle=_DASHES[m.index % len(_DASHES)][0])
    _intervals(axes, (edges[:-1] + edges[1:]) / 2, m.low, m.high, m.colour)


def _edges(centres: Array) -> Array:
    """Edges of bins halfway between their centres; the outer bins are as wide as their neighbours."""
    if centres.size == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    inner = (centres[:-1] + centres[1:]) / 2
    return np.concatenate([[2 * centres[0] - inner[0]], inner, [2 * centres[-1] - inner[-1]]])


def _intervals(axes: Axes, x: Array, low: Array | None, high: Array | None, colour: str) -> None:
    if low is None or high is None:
        return
    axes.vlines(x, low, high, color=colour, linewidth=1.4)
    for end in (low, high):
        axes.plot(x, end, linestyle="none", marker="_", markersize=6, markeredgewidth=1.4, color=colour)
