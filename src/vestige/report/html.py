"""Draw a record as one HTML file that needs nothing but a browser: no network, no script, no font.

The page carries a content security policy that forbids every fetch, so even a flaw in escaping could not call
home. Pictures of training data appear only when they are passed in.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from PIL import Image

from vestige.errors import InvalidInput
from vestige.record import Figure, Match, Record, Section
from vestige.report.evidence import Evidence, Picture, Pixels, Strip
from vestige.report.figure import Drawing, draw
from vestige.report.view import (
    Grid,
    figure_numbers,
    grid,
    groups,
    how_it_was_run,
    match_grid,
    settings,
)
from vestige.report.wording import VERDICT_MEANING, VERDICT_TITLE, clean, heading, moment, number, together

PAIRS_SHOWN = 60
_LARGEST_SIDE = 256
_PIXELATED_BELOW = 160


@dataclass(frozen=True)
class Tile:
    """An embedded image; small ones are enlarged with their pixels visible."""

    uri: str
    pixelated: bool


@dataclass(frozen=True)
class Pair:
    """A generated image beside the training image, with what to say below."""

    generated: Tile
    training: Tile
    label: str
    facts: str


@dataclass(frozen=True)
class Row:
    """A strip of images, ready to be placed."""

    title: str
    caption: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Chart:
    """A drawn figure with its words and its numbers; ``legend`` is false where the title says it all."""

    title: str
    caption: str
    drawing: Drawing
    legend: bool
    numbers: Grid
    wide: bool = False
    """Whether it takes the whole width of the page."""


@dataclass(frozen=True)
class Matches:
    """``hidden`` is true when no pictures were passed, which the page says."""

    pairs: tuple[Pair, ...]
    pairs_left_out: int
    table: Grid
    hidden: bool


@dataclass(frozen=True)
class Block:
    """A section of the page."""

    anchor: str
    title: str
    text: tuple[str, ...]
    strips: tuple[Row, ...]
    charts: tuple[Chart, ...]
    tables: tuple[Grid, ...]
    matches: Matches | None


def render(record: Record, evidence: Evidence | None = None) -> str:
    """The report of ``record`` as one HTML document.

    Parameters
    ----------
    record : what to show; every text in it is escaped.
    evidence : pictures to show. Without it no pixel of a training image reaches the page.

    Raises
    ------
    InvalidInput : a figure with series of unequal lengths, or strips for a section that does not exist.
    """
    if evidence is not None:
        _check_strips(record, evidence)
    blocks = [_block(section, i, evidence) for i, section in enumerate(record.sections)]
    page = _template().render(
        record=record,
        blocks=blocks,
        groups=groups(record.summary),
        verdict=record.verdict.value,
        verdict_title=VERDICT_TITLE[record.verdict],
        verdict_meaning=VERDICT_MEANING[record.verdict],
        created=moment(record.created),
        cost=how_it_was_run(record),
        settings=settings(record.config),
    )
    return page


def _check_strips(record: Record, evidence: Evidence) -> None:
    names = [section.name for section in record.sections]
    for name in evidence.strips:
        if name not in names:
            raise InvalidInput(
                f"There are strips for a section {name!r}, which the record does not have.",
                expected=f"one of {', '.join(map(repr, names)) or 'no sections at all'}.",
                remedy="use the evidence.npz of the same run as the record.",
            )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("vestige.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(clean=clean, heading=heading, number=number)
    return environment.get_template("page.html.j2")


def _block(section: Section, index: int, evidence: Evidence | None) -> Block:
    strips = evidence.strips.get(section.name, ()) if evidence is not None else ()
    charts = [_chart(figure, f"s{index}f{i}") for i, figure in enumerate(section.figures)]
    return Block(
        anchor=f"section-{index + 1}",
        title=clean(section.title) or heading(section.name),
        text=tuple(clean(paragraph) for paragraph in section.text),
        strips=tuple(_row(strip) for strip in strips),
        charts=tuple(charts),
        tables=tuple(grid(table) for table in section.tables),
        matches=_matches(section.matches, evidence) if section.matches else None,
    )


def _chart(figure: Figure, prefix: str) -> Chart:
    drawing = draw(figure, prefix=prefix)
    said = {clean(text).lower() for text in ("", figure.title, figure.y_label)}
    return Chart(
        title=clean(figure.title),
        caption=clean(figure.caption),
        drawing=drawing,
        legend=len(drawing.keys) > 1 or any(key.name.lower() not in said for key in drawing.keys),
        numbers=figure_numbers(figure),
        wide=figure.kind in ("scatter", "tree"),
    )


def _matches(matches: Sequence[Match], evidence: Evidence | None) -> Matches:
    pictures: Mapping[int, Picture] = evidence.pairs if evidence is not None else {}
    seen = [(m, pictures[m.picture]) for m in matches if m.picture is not None and m.picture in pictures]
    distances = together([m.distance for m, _ in seen[:PAIRS_SHOWN]])
    return Matches(
        pairs=tuple(_pair(m, p, d) for (m, p), d in zip(seen[:PAIRS_SHOWN], distances, strict=True)),
        pairs_left_out=max(0, len(seen) - PAIRS_SHOWN),
        table=match_grid(matches),
        hidden=evidence is None,
    )


def _pair(match: Match, picture: Picture, distance: str) -> Pair:
    copies = f"{number(match.copies)} {'copy' if match.copies == 1 else 'copies'}"
    return Pair(
        generated=_tile(picture.generated),
        training=_tile(picture.training),
        label=clean(picture.label),
        facts=f"distance {distance} · {copies}",
    )


def _row(strip: Strip) -> Row:
    return Row(title=clean(strip.title), caption=clean(strip.caption), tiles=tuple(_tile(i) for i in strip.images))


def _tile(pixels: Pixels) -> Tile:
    """A PNG in a data URI, reduced to at most 256 pixels a side: large enough to judge, small enough to embed."""
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Tile(uri=uri, pixelated=max(pixels.shape[:2]) < _PIXELATED_BELOW)
