"""Names beside the points of a scatter, moved apart where they would cover one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from vestige.report.svg import Ink

SIZE = 10.5
_WIDTH, _HEIGHT = 0.63 * SIZE, 1.15 * SIZE
"""Of one character, in SVG units; the page's font decides, so this is a bound for the usual ones."""
_REACHES = (7.0, 15.0, 26.0, 40.0, 56.0, 74.0)
_DIRECTIONS = 16
_POINT = 5.0
"""Half the room of a marker."""


@dataclass(frozen=True)
class Box:
    """A rectangle on the canvas."""

    left: float
    low: float
    right: float
    high: float

    def shared(self, other: Box) -> float:
        """Area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.high, other.high) - max(self.low, other.low)
        return max(0.0, width) * max(0.0, height)

    def outside(self, other: Box) -> float:
        """Area of this that the other does not hold."""
        return (self.right - self.left) * (self.high - self.low) - self.shared(other)


def arrange(points: Sequence[tuple[float, float]], names: Sequence[str], frame: Box) -> list[tuple[float, float]]:
    """Where the middle of each name goes, as an offset from its point.

    Greedy, in the order given: of places ever farther around a point the first that covers neither a marker nor a
    name already placed nor leaves the frame, or the one that does so least.
    """
    taken = [Box(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in points]
    offsets: list[tuple[float, float]] = []
    for (x, y), name in zip(points, names, strict=True):
        half = _WIDTH * max(len(name), 1) / 2, _HEIGHT / 2
        best: tuple[float, tuple[float, float], Box] | None = None
        for place in _places(*half):
            box = Box(x + place[0] - half[0], y + place[1] - half[1], x + place[0] + half[0], y + place[1] + half[1])
            cost = sum(box.shared(other) for other in taken) + 4 * box.outside(frame)
            if best is None or cost < best[0]:
                best = cost, place, box
            if cost == 0:
                break
        if best is not None:
            offsets.append(best[1])
            taken.append(best[2])
    return offsets


def _places(half_width: float, half_height: float) -> list[tuple[float, float]]:
    """Offsets of the middle of a name, near ones first and to the right before to the left."""
    turns = sorted((2 * math.pi * k / _DIRECTIONS for k in range(_DIRECTIONS)), key=lambda a: (1 - math.cos(a), -a))
    return [
        (math.cos(a) * (reach + half_width), math.sin(a) * (reach + half_height)) for reach in _REACHES for a in turns
    ]


def write(axes: Axes, points: Sequence[tuple[float, float]], names: Sequence[str], colours: Sequence[str]) -> None:
    """Write the names beside points in data coordinates, in their colours, with a line to one that had to move away."""
    figure = axes.get_figure(root=True)
    if figure is None:
        return
    engine = figure.get_layout_engine()  # pyright: ignore[reportAttributeAccessIssue]
    if engine is not None:
        engine.execute(figure)
    box = axes.get_window_extent()
    scale = 72.0 / figure.dpi
    shown = [tuple(float(v) * scale for v in axes.transData.transform(point)) for point in points]
    frame = Box(box.x0 * scale, box.y0 * scale, box.x1 * scale, box.y1 * scale)
    spots = arrange([(x, y) for x, y in shown], names, frame)
    for point, name, colour, (right, up) in zip(points, names, colours, spots, strict=True):
        edge = max(abs(right) - _WIDTH * len(name) / 2, abs(up) - _HEIGHT / 2)
        line = {"arrowstyle": "-", "color": Ink.SOFT.value, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 4}
        note = axes.annotate(
            name,
            point,
            xytext=(right, up),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=SIZE,
            color=colour,
            arrowprops=line if edge > _REACHES[0] + 1 else None,
            annotation_clip=False,
        )
        note.set_in_layout(False)
