"""The tables, figures and pictures of ``vestige metrics``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vestige.jobs.metrics_report import Measurements
from vestige.metrics.interval import Interval
from vestige.metrics.paired_distance import pixel_distance
from vestige.record import Cell, Figure, Match, Section, Series, Table
from vestige.report.evidence import Evidence, Picture, Strip

_BINS = 20
_SHOWN = 20
_WIDEST = 3.0
"""Ratios of distances above this share the last bin."""


def sections(found: Measurements, skipped: Sequence[str]) -> list[Section]:
    """The parts of the report."""
    parts = [_quality(found, skipped), _rare(found)]
    return parts if found.neighbours.training is None else [*parts, _training(found)]


_COLUMNS = ("measure", "value", "low", "high", "n", "real images", "low", "high")


def _row(title: str, value: Interval | None, real: Interval | float | None = None) -> list[Cell]:
    """A line of a table: what generated images measure, and what real ones do or would be expected to."""
    beside = _rounded(real) if real is None or isinstance(real, Interval) else [round(float(real), 4), None, None]
    return [title, *_rounded(value), None if value is None else value.n, *beside]


def _rounded(value: Interval | None) -> list[Cell]:
    numbers = (None, None, None) if value is None else (value.value, value.low, value.high)
    return [None if v is None or not np.isfinite(v) else round(float(v), 4) for v in numbers]


def _opposite(share: Interval) -> Interval:
    return Interval(1 - share.value, 1 - share.high, 1 - share.low, share.n)


def _quality(found: Measurements, skipped: Sequence[str]) -> Section:
    n = found.neighbours
    rows = [
        _row("precision", n.fidelity.precision, _opposite(n.real_rarity.undefined)),
        _row("recall", n.fidelity.recall),
        _row("density", n.density.density, 1.0),
        _row("coverage", n.density.coverage, n.density.expected_coverage),
        _row("clipped density", n.clipped.density, 1.0),
        _row("clipped coverage", n.clipped.coverage, 1.0),
        _row("probabilistic precision", n.probabilistic.precision),
        _row("probabilistic recall", n.probabilistic.recall),
        _row("Fréchet distance", found.frechet, found.frechet_of_training),
        _row("kernel distance", found.kernel, 0.0),
        *([] if found.vendi is None else [_row("Vendi score", *found.vendi)]),
    ]
    text = [
        "Precision and its kin fall when generated images look like no real one, recall and its kin when real images "
        "are missed. The last columns hold what real images score among themselves or, without an interval, what "
        "images of the real distribution would be expected to score."
    ]
    if skipped:
        text.append(f"{len(skipped)} unreadable files were left out: {', '.join(skipped[:5])}.")
    table = Table(
        name="quality",
        title="Fidelity, diversity and distance",
        columns=list(_COLUMNS),
        rows=rows,
        caption=f"{found.footing}. Vendi scores are those of equally many images of both sides; the Fréchet distance "
        "beside that of the generated images is that of training images, where there are some.",
    )
    return Section(name="quality", title="How good and how diverse", text=text, tables=[table])


def _rare(found: Measurements) -> Section:
    n = found.neighbours
    rows = [
        _row("mean percentile", n.rarity.percentile, n.real_rarity.percentile),
        _row("mean rarity score", n.rarity.mean, n.real_rarity.mean),
        _row("share without a score", n.rarity.undefined, n.real_rarity.undefined),
    ]
    table = Table(
        name="rarity",
        title="Rarity",
        columns=list(_COLUMNS),
        rows=rows,
        caption=f"{found.footing}. Real images are scored against the balls of the others.",
    )
    figure = Figure(
        name="rarity",
        title="Where images stand among the radii of real ones",
        kind="histogram",
        series=[
            _histogram("generated", n.rarity.percentiles, 1.0),
            _histogram("real", n.real_rarity.percentiles, 1.0),
        ],
        x_label="percentile of the rarity score (1 is rarest)",
        y_label="share of the images that have a score",
        caption=f"{found.footing}. Without a score: {n.rarity.undefined.value:.1%} of the generated and "
        f"{n.real_rarity.undefined.value:.1%} of the real images.",
    )
    text = [
        "The rarity score of an image is the radius of the smallest ball of a real image that holds it: large where "
        "real images lie far apart. An image in no ball has none: it may be rare, or broken. The percentile is the "
        "share of real radii below the score."
    ]
    return Section(name="rarity", title="How rare", text=text, tables=[table], figures=[figure])


def _histogram(name: str, values: npt.NDArray[np.float64], highest: float) -> Series:
    known = np.minimum(values[~np.isnan(values)], highest)
    counts, edges = np.histogram(known, bins=_BINS, range=(0.0, highest))
    shares = counts / max(1, known.size)
    return Series(name=f"{name}, n = {known.size:,}", x=[float(e) for e in edges], y=[float(s) for s in shares])


def _training(found: Measurements) -> Section:
    n = found.neighbours
    mine, real = n.training, n.real_training
    if mine is None or real is None:
        raise ValueError("there are no training images")
    table = Table(
        name="training",
        title="Beside the training images",
        columns=list(_COLUMNS),
        rows=[
            _row("share authentic", mine.share, real.share),
            _row("share of copies", mine.copies, real.copies),
        ],
        caption=f"{found.footing}; {len(found.images['training']):,} training images, of which copies count once.",
    )
    figure = Figure(
        name="training",
        title="Distance to the nearest training image",
        kind="histogram",
        series=[_histogram("generated", mine.ratio, _WIDEST), _histogram("real", real.ratio, _WIDEST)],
        x_label="distance / that training image's own to its nearest other",
        y_label="share of the images",
        thresholds=[("authentic beyond", 1.0)],
        caption=f"{found.footing}. Ratios above {_WIDEST:g} are in the last bin.",
    )
    text = [
        "An image is authentic if it lies farther from its nearest training image than that one lies from every other "
        "training image. About half of fresh real images are. What is rare and not authentic may be a memorized image "
        "and not a find."
    ]
    return Section(
        name="training", title="New or copied", text=text, tables=[table], figures=[figure], matches=_matches(found)
    )


def _suspects(found: Measurements) -> npt.NDArray[np.int64]:
    """Generated images that are not authentic, nearest to a training image first."""
    training = found.neighbours.training
    if training is None:
        return np.empty(0, np.int64)
    order = np.argsort(training.ratio, kind="stable")
    return order[~training.authentic[order]][:_SHOWN].astype(np.int64)


def _matches(found: Measurements) -> list[Match]:
    training, rows = found.neighbours.training, _suspects(found)
    if training is None or not len(rows):
        return []
    generated, seen = found.images["generated"], found.images["training"]
    near = training.index[rows]
    distances = pixel_distance(generated.pixels[rows], seen.pixels[near])
    copies = {identity: seen.ids.count(identity) for identity in {seen.ids[i] for i in near}}
    return [
        Match(
            row=seen.ids[near[place]],
            generation=int(row),
            distance=float(distances[place]),
            calibrated=float(training.ratio[row]),
            copies=copies[seen.ids[near[place]]],
            picture=place,
        )
        for place, row in enumerate(rows)
    ]


def evidence(found: Measurements) -> Evidence:
    """The rarest and the most ordinary generated images, those outside, and suspects beside training images."""
    n, pixels = found.neighbours, np.moveaxis(found.images["generated"].pixels, 1, -1)
    order = np.argsort(n.rarity.scores, kind="stable")[: int(n.rarity.inside.sum())]
    outside = np.flatnonzero(~n.rarity.inside)
    outside = outside[np.argsort(-n.nearest[outside], kind="stable")]
    strips = [
        Strip(title, pixels[rows[:_SHOWN]], caption)
        for title, rows, caption in (
            ("Rarest generated images in the real manifold", order[::-1], "By rarity score, the rarest first."),
            ("Most ordinary generated images", order, "The lowest score first."),
            ("Outside the real manifold", outside, "Farthest from the nearest real image first; rare, or broken."),
        )
        if len(rows)
    ]
    if n.training is None:
        return Evidence(strips={"rarity": strips})
    seen = found.images["training"]
    pairs = {
        place: Picture(pixels[row], np.moveaxis(seen.pixels[near], 0, -1), seen.ids[near])
        for place, row in enumerate(_suspects(found))
        for near in [int(n.training.index[row])]
    }
    return Evidence(pairs=pairs, strips={"rarity": strips})
