"""Tables, figures and matches of an extraction, drawn from what was found."""

from __future__ import annotations

import numpy as np

from vestige.audit.extraction.precision import Claim
from vestige.audit.extraction.search import Floats, Index, Search
from vestige.data.split import Split, duplicate_groups
from vestige.metrics.interval import Interval, clopper_pearson, estimate
from vestige.nearest import count_within
from vestige.record import Cell, Estimate, Figure, Match, Series, Table

COUNTS = (4, 16, 64, 256)
"""Duplicate counts at and above which recall is summarized."""

_CLIQUES_SHOWN = 20


def recall_lines(split: Split, extracted: Index) -> list[Estimate]:
    """Share of members extracted, among unique ones and from each duplicate count up."""
    found = np.isin(np.arange(len(split.members)), extracted)
    lines = [("extraction/recall@copies=1", split.copies == 1)]
    lines += [(f"extraction/recall@copies>={c}", split.copies >= c) for c in COUNTS]
    return [
        estimate(name, clopper_pearson(int(found[mask].sum()), int(mask.sum())), "share of training images")
        for name, mask in lines
        if mask.any()
    ]


def _groups(split: Split, extracted: Index) -> list[tuple[str, int, Interval]]:
    found = np.isin(np.arange(len(split.members)), extracted)
    return [
        (name, int(found[mask].sum()), clopper_pearson(int(found[mask].sum()), int(mask.sum())))
        for name, mask in duplicate_groups(split.copies)
    ]


def recall_table(split: Split, extracted: Index) -> Table:
    """Extracted by duplicate count."""
    rows: list[list[Cell]] = [
        [name, part.n, hits, round(part.value, 4), round(part.low, 4), round(part.high, 4)]
        for name, hits, part in _groups(split, extracted)
    ]
    columns = ["copies in training data", "images", "extracted", "share", "low", "high"]
    return Table(name="recall", title="Extracted, by duplicate count", columns=columns, rows=rows)


def recall_figure(split: Split, extracted: Index) -> Figure:
    """The same as bars."""
    groups = _groups(split, extracted)
    series = Series(
        name="extracted",
        x=[name for name, _, _ in groups],
        y=[part.value for _, _, part in groups],
        low=[part.low for _, _, part in groups],
        high=[part.high for _, _, part in groups],
    )
    return Figure(
        name="recall",
        title="Share of training images extracted, by duplicate count",
        kind="bars",
        series=[series],
        x_label="copies in the training data",
        y_label="share extracted",
        caption="Bars show 95 % Clopper-Pearson intervals.",
    )


def clique_table(claims: list[Claim], clique_size: int, delta: float, undecided: int) -> Table:
    """The tightest cliques, and whether they hold a copy."""
    rows: list[list[Cell]] = [
        [rank, len(claim.generations), round(claim.mean_distance, 4), claim.condition, bool(claim.copied)]
        for rank, claim in enumerate(claims[:_CLIQUES_SHOWN], start=1)
    ]
    caption = (
        f"Groups of at least {clique_size} generations within {delta:g} of one another, found without "
        f"looking at any training image; tightest first, {len(claims)} in all."
    )
    if undecided:
        caption += f" The search stopped early for {undecided} generations."
    columns = ["rank", "generations", "mean distance", "class", "matches training data"]
    return Table(name="cliques", title="What an outsider would claim", columns=columns, rows=rows, caption=caption)


def matches(search: Search, split: Split, delta: float) -> list[Match]:
    """The best generation of each extracted image, nearest first."""
    best: dict[int, int] = {}
    for g in np.flatnonzero(search.copies(delta)):
        row = int(search.index[g])
        if row not in best or search.distance[g] < search.distance[best[row]]:
            best[row] = int(g)
    within = count_within(split.members.flat[list(best)], split.members.flat, delta) if best else []
    eidetic = dict(zip(best, within, strict=True))
    ranked = sorted(best.items(), key=lambda item: (search.distance[item[1]], item[0]))
    return [
        Match(
            row=split.members.ids[row],
            generation=g,
            distance=float(search.distance[g]),
            calibrated=None if np.isnan(search.ratio[g]) else float(search.ratio[g]),
            copies=int(split.copies[row]),
            eidetic=int(eidetic[row]),
            picture=place,
        )
        for place, (row, g) in enumerate(ranked)
    ]


def distance_figure(members: Search, others: Search | None, delta: float) -> Figure:
    """Distances from each generation to its nearest image, members and non-members apart."""
    series = [_histogram("members", members.distance)]
    if others is not None:
        series.append(_histogram("non-members", others.distance))
    return Figure(
        name="distances",
        title="Distance from each generation to its nearest image",
        kind="histogram",
        series=series,
        x_label="rms distance, pixels in [0, 1]",
        y_label="generations",
        thresholds=[("delta", delta)],
        caption="A second hump near zero among members only is copying.",
    )


def _histogram(name: str, values: Floats) -> Series:
    counts, edges = np.histogram(values, bins=40, range=(0.0, float(max(values.max(initial=0), 0.2))))
    return Series(name=name, x=[float(e) for e in (edges[:-1] + edges[1:]) / 2], y=[float(c) for c in counts])
