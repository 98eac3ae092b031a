"""What the page shows, as plain text in the order of the page: cards, grids, matches and lists.

Everything here is a pure function of a record; the template only places it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from vestige.record import Cell, Estimate, Figure, Match, Record, Series, Table
from vestige.report.wording import (
    NOT_MEASURED,
    clean,
    duration,
    group_of,
    heading,
    leading,
    memory,
    number,
    reading,
    together,
)

ROWS_SHOWN = 200
POINTS_SHOWN = 40
DASH = "\u2013"

_RATES = frozenset({"rate", "fraction", "share", "proportion", "probability"})
_RATE_WORDS = _RATES | {"auc", "recall", "precision", "tpr", "fpr", "fnr", "accuracy", "coverage", "authenticity"}


@dataclass(frozen=True)
class Card:
    """One summary line. ``scale`` is value, low and high of a rate in percent, for a bar from 0 to 1."""

    name: str
    label: str
    value: str
    unit: str
    interval: str
    n: str
    note: str
    measured: bool
    scale: tuple[float, float, float] | None


@dataclass(frozen=True)
class Group:
    """Cards whose names share the part before the slash."""

    title: str
    cards: tuple[Card, ...]
    leads: bool = True
    """Whether it opens the report or waits behind a fold."""


@dataclass(frozen=True)
class Column:
    """Heading of a column; a ``short`` one is kept on one line."""

    title: str
    numeric: bool
    short: bool = True


@dataclass(frozen=True)
class Grid:
    """A table ready to be placed; ``left_out`` counts rows that the page does not show."""

    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    left_out: int = 0


def groups(summary: Sequence[Estimate]) -> list[Group]:
    """Summary lines by the part of their name before the slash, in order of first appearance."""
    found: dict[str, list[Card]] = {}
    for line in summary:
        found.setdefault(group_of(line.name), []).append(card(line))
    first = leading(line.name for line in summary)
    return [
        Group(title=heading(name) or "Overall", cards=tuple(cards), leads=name in first)
        for name, cards in found.items()
    ]


def card(line: Estimate) -> Card:
    """The card of one summary line."""
    value, interval = reading(line)
    rest = line.name.partition("/")[2] if "/" in line.name else line.name
    measured = value != NOT_MEASURED
    return Card(
        name=clean(line.name),
        label=heading(rest) or clean(line.name),
        value=value,
        unit=clean(line.unit) if measured else "",
        interval=interval if measured else "",
        n=number(line.n) if line.n is not None else "",
        note=clean(line.note),
        measured=measured,
        scale=_scale(line) if measured else None,
    )


def _scale(line: Estimate) -> tuple[float, float, float] | None:
    words = set(re.split(r"[^a-z]+", line.name.lower()))
    rate = line.unit.lower() in _RATES or (not line.unit and words & _RATE_WORDS)
    if not rate or line.value is None or line.low is None or line.high is None:
        return None
    if not 0 <= line.low <= line.value <= line.high <= 1:
        return None
    value, low, high = (round(100 * v, 2) for v in (line.value, line.low, line.high))
    return value, low, high


def grid(table: Table) -> Grid:
    """A table with numbers written alike within each column; rows that are too short are filled up."""
    shown = table.rows[:ROWS_SHOWN]
    width = max([len(table.columns), *(len(row) for row in shown)], default=0)
    titles = [clean(c) for c in table.columns] + [""] * (width - len(table.columns))
    cells = [[row[i] if i < len(row) else None for row in shown] for i in range(width)]
    texts = [column(values) for values in cells]
    return Grid(
        title=clean(table.title),
        caption=clean(table.caption),
        columns=tuple(Column(*c) for c in zip(titles, map(_numeric, cells), map(_short, texts), strict=True)),
        rows=tuple(tuple(text[i] for text in texts) for i in range(len(shown))),
        left_out=len(table.rows) - len(shown),
    )


def column(values: Sequence[Cell]) -> list[str]:
    """Cells of one column as text. Numbers within a factor of 1000 share their decimals."""
    floats = [v for v in values if isinstance(v, float) and math.isfinite(v) and abs(v) > 0]
    sizes = [abs(v) for v in floats]
    if not _numeric(values) or not sizes or max(sizes) / min(sizes) > 1000:
        return [cell(v) for v in values]
    aligned = together(
        [None if v is None else float(v) for v in values if not isinstance(v, str)],
        extra=1 if max(sizes) / min(sizes) > 10 else 0,
    )
    return [DASH if text == NOT_MEASURED else text for text in aligned]


def cell(value: Cell) -> str:
    """One cell as text; null is a dash, truth values are yes and no."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return clean(value)
    text = number(value)
    return DASH if text == NOT_MEASURED else text


def _numeric(values: Sequence[Cell]) -> bool:
    kinds = [isinstance(v, (int, float)) and not isinstance(v, bool) for v in values if v is not None]
    return bool(kinds) and all(kinds)


def _short(texts: Sequence[str]) -> bool:
    return max(map(len, texts), default=0) <= 24


def figure_numbers(figure: Figure) -> Grid:
    """The numbers behind a chart. Series on one x share the rows; long series are thinned evenly."""
    x_title = clean(figure.x_label) or "x"
    shared = len({tuple(map(str, s.x)) for s in figure.series}) == 1
    if shared and figure.kind not in ("histogram", "scatter"):
        first = figure.series[0]
        rows = _thinned(len(first.y))
        texts = [_spread(s) for s in figure.series]
        titles = [Column(x_title, _numeric(first.x)), *(Column(clean(s.name), True) for s in figure.series)]
        body = [(cell(first.x[i]), *(text[i] for text in texts)) for i in rows]
        total = len(first.y)
    else:
        titles = [Column("series", False), Column(x_title, True), Column(clean(figure.y_label) or "y", True)]
        body = [row for s in figure.series for row in _long(s)]
        total = sum(len(s.y) for s in figure.series)
    return Grid(title="", caption="", columns=tuple(titles), rows=tuple(body), left_out=total - len(body))


def _long(series: Series) -> list[tuple[str, str, str]]:
    texts = _spread(series)
    edges = len(series.x) == len(series.y) + 1
    places = [f"{cell(a)} to {cell(b)}" for a, b in pairwise(series.x)] if edges else _across(series)
    names = [f"{series.name}: {label}" for label in series.labels] if series.labels else [series.name] * len(series.y)
    return [(clean(names[i]), places[i], texts[i]) for i in _thinned(len(series.y))]


def _across(series: Series) -> list[str]:
    """Positions, with their intervals where they have some."""
    if series.x_low is None or series.x_high is None:
        return [cell(x) for x in series.x]
    y: list[float | None] = [None if isinstance(x, str) else x for x in series.x]
    return _spread(Series(name=series.name, x=series.x, y=y, low=series.x_low, high=series.x_high))


def _thinned(count: int) -> list[int]:
    step = max(1, math.ceil(count / POINTS_SHOWN))
    kept = list(range(0, count, step))
    return kept if not kept or kept[-1] == count - 1 else [*kept, count - 1]


def _spread(series: Series) -> list[str]:
    texts: list[str] = []
    for i, y in enumerate(series.y):
        low = series.low[i] if series.low is not None else None
        high = series.high[i] if series.high is not None else None
        value, interval = reading(Estimate(name="", value=y, low=low, high=high))
        texts.append(DASH if value == NOT_MEASURED else f"{value} {interval}".rstrip())
    return texts


def match_grid(matches: Sequence[Match]) -> Grid:
    """The table of recovered images: training row, generation, distance, calibrated distance, copies."""
    calibrated = any(m.calibrated is not None for m in matches)
    columns = ["training image", "generation", "distance", *(["calibrated"] if calibrated else []), "copies"]
    rows: list[list[Cell]] = [
        [m.row, m.generation, m.distance, *([m.calibrated] if calibrated else []), m.copies] for m in matches
    ]
    return grid(Table(name="matches", title="", columns=columns, rows=rows))


def how_it_was_run(record: Record) -> list[tuple[str, str]]:
    """Cost and environment as label and value."""
    cost, place = record.cost, record.environment
    rows = [("Time", duration(cost.seconds)), ("Network evaluations", number(cost.network_evaluations))]
    if cost.peak_memory_bytes is not None:
        rows.append(("Peak memory", memory(cost.peak_memory_bytes)))
    rows += [
        ("Device", f"{clean(place.device)}, {place.threads} thread{'' if place.threads == 1 else 's'}"),
        ("Platform", clean(place.platform)),
        ("Python", clean(place.python)),
    ]
    rows += [(clean(name), clean(version)) for name, version in place.versions.items()]
    return rows


def settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The configuration with nested names joined by dots, values as JSON."""
    return list(_flat(config, ""))


def _flat(value: Any, path: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield from _flat(inner, f"{path}.{key}" if path else str(key))  # pyright: ignore[reportUnknownArgumentType]
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        yield clean(path), clean(text)
