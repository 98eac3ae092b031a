"""Draw the charts of a record: lines with bands, bars, points with intervals, histograms, scatters, trees.

``draw`` takes a :class:`vestige.record.Figure`, which is data, and gives inline SVG with a legend that the page
lays out itself, so that long names wrap on a phone. A series is told apart by colour and also by dash, marker or
order, so nothing depends on colour alone.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from vestige.errors import InvalidInput
from vestige.record import Figure, Series
from vestige.report import labels
from vestige.report.marks import Array, Marks, bars, histogram, legend_dash, legend_marker, line, points, scatter, tree
from vestige.report.svg import Ink, canvas, markup, series_ink
from vestige.report.wording import clean, number

WIDTH, HEIGHT, SQUARE = 380.0, 285.0, 355.0
WIDE = 640.0, 430.0
"""Of a scatter, whose names need room."""
LEAF = 20.0
"""Height of a leaf of a tree."""

_KIND = {
    "line": "Line chart",
    "bars": "Bar chart",
    "points": "Point chart",
    "histogram": "Histogram",
    "scatter": "Scatter chart",
    "tree": "Tree",
}


@dataclass(frozen=True)
class Key:
    """One entry of a legend. ``dash`` is an SVG dash array, ``marker`` a character; bars have neither."""

    name: str
    colour: str
    kind: str
    dash: str = ""
    marker: str = ""


@dataclass(frozen=True)
class Drawing:
    """A drawn chart: inline SVG, its legend, and the sentence that stands for it when it is read aloud."""

    svg: str
    keys: tuple[Key, ...]
    label: str


_DRAW: dict[str, Callable[[Axes, Marks, bool], None]] = {
    "line": line,
    "bars": bars,
    "points": points,
    "histogram": histogram,
    "scatter": scatter,
    "tree": tree,
}


def draw(figure: Figure, *, prefix: str) -> Drawing:
    """Draw ``figure``; ``prefix`` is unique on the page and starts every identifier of the SVG.

    For a histogram ``x`` holds the n + 1 edges of n bins, or their n centres. Points of a scatter are named beside.

    Raises
    ------
    InvalidInput : a series whose x, y, low and high do not have matching lengths.
    """
    _check(figure)
    categories = _categories(figure)
    marks = [_marks(s, i, len(figure.series), categories) for i, s in enumerate(figure.series)]
    label = _label(figure)
    lettered = False
    with canvas(*_size(figure)) as paper:
        axes = paper.add_subplot()
        axes.set_xlabel(clean(figure.x_label))
        axes.set_ylabel(clean(figure.y_label))
        if any(np.isfinite(m.y).any() for m in marks):
            _scales(axes, figure, marks, categories)
            for m in marks:
                _DRAW[figure.kind](axes, m, categories is not None)
            _limits(axes, figure, marks)
            lettered = _thresholds(axes, figure.thresholds)
            _names(axes, figure, marks)
        else:
            _nothing(axes)
        svg = markup(paper, prefix=prefix, label=label)
    return Drawing(svg=svg, keys=_keys(figure, lettered), label=label)


def _size(figure: Figure) -> tuple[float, float]:
    if figure.kind == "scatter":
        return WIDE
    if figure.kind == "tree":
        return WIDE[0], max(150.0, 60 + LEAF * sum(len(_leaves(series)) for series in figure.series))
    return WIDTH, SQUARE if figure.diagonal else HEIGHT


def _leaves(series: Series) -> dict[str, float]:
    """The named ends of a tree and their places."""
    named = zip(series.labels or [], series.y, strict=bool(series.labels))
    return {clean(name): y for name, y in named if name and y is not None}


def _names(axes: Axes, figure: Figure, marks: list[Marks]) -> None:
    """The names of the points of a scatter that are on the chart, or of the leaves of a tree."""
    if figure.kind == "tree":
        ends = {name: y for series in figure.series for name, y in _leaves(series).items()}
        axes.set_yticks(list(ends.values()), list(ends))
        axes.yaxis.tick_right()
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        return
    points: list[tuple[float, float]] = []
    names: list[str] = []
    colours: list[str] = []
    for series, m in zip(figure.series, marks, strict=True):
        for name, x, y in zip(series.labels or [], m.x.tolist(), m.y.tolist(), strict=bool(series.labels)):
            logs_fit = (not figure.x_log or x > 0) and (not figure.y_log or y > 0)
            if name and math.isfinite(x) and math.isfinite(y) and logs_fit:
                points.append((x, y))
                names.append(clean(name))
                colours.append(m.colour)
    if names:
        labels.write(axes, points, names, colours)


def _check(figure: Figure) -> None:
    for series in figure.series:
        n = len(series.y)
        widths = {n, n + 1} if figure.kind == "histogram" and n else {n}
        if figure.kind == "histogram" and any(isinstance(x, str) for x in series.x):
            raise InvalidInput(
                f"Series {series.name!r} of histogram {figure.name!r} has words on its x axis.",
                expected="numbers: the edges or the centres of the bins.",
                remedy="use kind 'bars' for counts by name.",
            )
        parts = {"x": (len(series.x), widths)}
        others = {"low": series.low, "high": series.high, "x_low": series.x_low, "x_high": series.x_high}
        others |= {"labels": series.labels}
        parts |= {k: (len(v), {n}) for k, v in others.items() if v is not None}
        for part, (length, allowed) in parts.items():
            if length not in allowed:
                raise InvalidInput(
                    f"Series {series.name!r} of figure {figure.name!r} has {length} values of {part} and {n} of y.",
                    expected=f"as many values of {part} as of y (a histogram may have one edge more in x).",
                    remedy="correct the part of the program that fills this figure.",
                )


def _categories(figure: Figure) -> list[float | str] | None:
    """Places on a categorical axis, each once; None when the axis is numeric."""
    values = [x for series in figure.series for x in series.x]
    words = any(isinstance(x, str) for x in values)
    if figure.kind == "histogram" or not (words or figure.kind == "bars"):
        return None
    unique = list(dict.fromkeys(values))
    return unique if words else sorted(unique)


def _marks(series: Series, index: int, count: int, categories: list[float | str] | None) -> Marks:
    if categories is None:
        x = _array([float(value) for value in series.x])
    else:
        place = {value: i for i, value in enumerate(categories)}
        x = _array([float(place[value]) for value in series.x])
    sides = (series.low, series.high, series.x_low, series.x_high)
    low, high, x_low, x_high = (None if side is None else _array(side) for side in sides)
    return Marks(x, _array(series.y), low, high, index, count, x_low, x_high)


def _array(values: Sequence[float | None]) -> Array:
    array = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    array[~np.isfinite(array)] = np.nan
    return array


def _scales(axes: Axes, figure: Figure, marks: list[Marks], categories: list[float | str] | None) -> None:
    if categories is not None:
        _name_places(axes, categories)
    elif figure.x_log and any((m.x > 0).any() for m in marks):
        _logarithmic(axes, "x")
    if figure.y_log and any((m.y > 0).any() for m in marks):
        _logarithmic(axes, "y")
    if figure.kind == "scatter" and axes.get_xscale() == "log" and _decades(marks) < 2:
        axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0), numticks=12))
    axes.tick_params(length=3)
    if categories is not None or figure.kind == "histogram":
        axes.grid(visible=False, axis="x")


def _decades(marks: list[Marks]) -> float:
    """How many powers of ten the positions span."""
    positive = np.concatenate([m.x[m.x > 0] for m in marks])
    return float(np.log10(positive.max() / positive.min()))


def _tick(value: float, position: int | None = None) -> str:
    return number(float(value))


def _logarithmic(axes: Axes, which: str) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(base=10, numticks=7))
    axis.set_major_formatter(FuncFormatter(_tick))
    axis.set_minor_formatter(NullFormatter())


def _name_places(axes: Axes, categories: list[float | str]) -> None:
    """Label a categorical axis: on up to three lines where words fit their place, else at a slant."""
    shown = list(range(0, len(categories), math.ceil(len(categories) / 20)))
    names = [clean(x) if isinstance(x, str) else number(x) for x in (categories[i] for i in shown)]
    room = max(1, 45 // len(shown) - 1)
    wrapped = [textwrap.wrap(name, room, break_long_words=False) for name in names]
    if all(len(lines) <= 3 and all(len(line) <= room for line in lines) for lines in wrapped):
        axes.set_xticks(shown, ["\n".join(lines) for lines in wrapped])
    else:
        short = [n if len(n) <= 18 else f"{n[:17]}…" for n in names]
        axes.set_xticks(shown, short, rotation=38, ha="right", rotation_mode="anchor")
    axes.set_xlim(-0.6, len(categories) - 0.4)


def _limits(axes: Axes, figure: Figure, marks: list[Marks]) -> None:
    values = np.concatenate([a.ravel() for m in marks for a in (m.y, m.low, m.high) if a is not None])
    values = values[np.isfinite(values)]
    log_y = axes.get_yscale() == "log"
    if log_y:
        # A band that reaches 0 would stretch a logarithmic axis without end.
        axes.set_ylim(bottom=min(float(v) for m in marks for v in m.y if v > 0) / 1.5)
    if figure.diagonal:
        _chance(axes, marks)
    elif figure.kind in ("bars", "histogram") and not log_y:
        fraction = values.min() >= 0 and 0.5 < values.max() <= 1
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]), top=1.02 if fraction else None)


def _chance(axes: Axes, marks: list[Marks]) -> None:
    """The line y = x over the range that is shown, which is the unit square unless an axis is logarithmic."""
    log = axes.get_xscale() == "log"
    positive = [float(v) for m in marks for v in m.x if v > 0]
    start = max(min([0.1, *positive]), 1e-5) if log else 0.0
    ends = np.geomspace(start, 1.0, 64) if log else np.array([0.0, 1.0])
    axes.plot(ends, ends, color=Ink.SOFT.value, linewidth=1.2, linestyle=(0, (3, 3)), zorder=1.5)
    axes.set_xlim(start if log else -0.01, 1.0 if log else 1.01)
    if axes.get_yscale() != "log":
        axes.set_ylim(-0.01, 1.01)
    elif log:
        axes.set_ylim(bottom=max(start, axes.get_ylim()[0]), top=1.1)


def _thresholds(axes: Axes, thresholds: Sequence[tuple[str, float]]) -> bool:
    """Vertical dashed lines with names above the axes; letters (then True is returned) where names do not fit."""
    shown = sorted((value, clean(name)) for name, value in thresholds if math.isfinite(value))
    for value, _ in shown:
        axes.axvline(value, color=Ink.TEXT.value, linewidth=1.2, linestyle=(0, (4, 3)))
    # Positions are read after the lines were added, since these widen the axis.
    to_axes = axes.transData + axes.transAxes.inverted()
    places = [float(to_axes.transform((value, axes.get_ylim()[0]))[0]) for value, _ in shown]
    sides = _sides(places, [0.023 * len(name) + 0.02 for _, name in shown])
    letters = _letters(thresholds)
    row, last = 0, -math.inf
    for (value, name), place, side in zip(shown, places, sides or ["center"] * len(shown), strict=True):
        row, last = (1 - row if place - last < 0.05 else 0), place
        axes.annotate(
            name if sides else letters[name, value],
            (value, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3 if sides else 3 + 14 * row),
            textcoords="offset points",
            ha=side,
            fontsize=11.5,
        )
    return sides is None and bool(shown)


def _sides(places: list[float], widths: list[float]) -> list[str] | None:
    """Alignment of one or two names beside their lines; None if they would collide or leave the chart."""
    right = [place + width <= 1.03 for place, width in zip(places, widths, strict=True)]
    left = [place - width >= -0.2 for place, width in zip(places, widths, strict=True)]
    if len(places) == 1 and (right[0] or left[0]):
        return ["left" if right[0] else "right"]
    return ["right", "left"] if len(places) == 2 and left[0] and right[1] else None


def _letters(thresholds: Sequence[tuple[str, float]]) -> dict[tuple[str, float], str]:
    ordered = sorted((value, clean(name)) for name, value in thresholds if math.isfinite(value))
    return {(name, value): chr(ord("a") + i % 26) for i, (value, name) in enumerate(ordered)}


def _nothing(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, "nothing was measured", transform=axes.transAxes, ha="center", va="center")


def _keys(figure: Figure, lettered: bool) -> tuple[Key, ...]:
    keys = [
        Key(
            name=clean(series.name),
            colour=series_ink(i).css,
            kind=figure.kind,
            dash=legend_dash(i) if figure.kind in ("line", "histogram") else "",
            marker=legend_marker(i) if figure.kind in ("points", "scatter") else "",
        )
        for i, series in enumerate(figure.series)
    ]
    if figure.diagonal:
        keys.append(Key(name="chance (y = x)", colour=Ink.SOFT.css, kind="line", dash="5 4"))
    for (name, value), letter in _letters(figure.thresholds).items():
        exact = name if number(value) in name else f"{name}: {number(value)}"
        text = f"{letter}: {exact}" if lettered else exact
        keys.append(Key(name=text, colour=Ink.TEXT.css, kind="upright", dash="4 3"))
    return tuple(keys)


def _label(figure: Figure) -> str:
    names = ", ".join(clean(s.name) for s in figure.series)
    axes = f" {clean(figure.y_label)} against {clean(figure.x_label)}." if figure.x_label and figure.y_label else ""
    marks = "".join(f" {clean(name)} at {number(value)}." for name, value in figure.thresholds)
    return f"{_KIND[figure.kind]}: {clean(figure.title)}.{axes} Series: {names}.{marks}"
