"""What ``vestige metrics`` measured, in summary lines, tables, figures, words and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from vestige.audit.membership.rows import choose
from vestige.data.images import ImageSet
from vestige.digest import short
from vestige.errors import InvalidInput
from vestige.jobs.quality import fewest
from vestige.metrics.arrays import Features
from vestige.metrics.frechet import Gaussian, frechet_interval, kernel_distance
from vestige.metrics.interval import Interval, estimate
from vestige.metrics.neighbours import NeighbourMetrics
from vestige.metrics.paired_distance import pixel_distance
from vestige.metrics.vendi import vendi_score
from vestige.record import Cell, Estimate, Figure, Match, NotDone, Section, Series, Table
from vestige.report.evidence import Evidence, Picture, Strip

_BINS = 20
_SHOWN = 20
_WIDEST = 3.0
"""Ratios of distances above this share the last bin."""


@dataclass(frozen=True, eq=False)
class Measurements:
    """Images and features by side (``generated``, ``real``, perhaps ``training``), and what was measured of them.

    ``judge`` and ``digest`` name the features.
    """

    images: Mapping[str, ImageSet]
    features: Mapping[str, Features]
    judge: str
    digest: str
    neighbours: NeighbourMetrics
    seed: int

    @property
    def footing(self) -> str:
        """What every number rests on, without which it cannot be compared."""
        found = self.neighbours
        return (
            f"{found.generated:,} generated and {found.reference:,} real images, k = {found.neighbours}, "
            f"features {short(self.digest)}"
        )

    @cached_property
    def frechet(self) -> Interval | None:
        """Fréchet distance; None where there are too few images for the features."""
        return self._frechet(self.features["generated"])

    @cached_property
    def frechet_of_training(self) -> Interval | None:
        """The same of as many training images as there are generated ones, or of all."""
        if "training" not in self.features or self.frechet is None:
            return None
        return self._frechet(self._some("training", self.neighbours.generated))

    @cached_property
    def kernel(self) -> Interval:
        """Kernel distance."""
        return kernel_distance(self.features["generated"], self.features["real"])

    @cached_property
    def vendi(self) -> tuple[Interval, Interval] | None:
        """Vendi scores of equally many generated and real images; None where an image has features of zero."""
        count = min(self.neighbours.generated, self.neighbours.reference)
        try:
            one, two = (vendi_score(self._some(side, count), seed=self.seed) for side in ("generated", "real"))
        except InvalidInput:
            return None
        return one, two

    def _frechet(self, rows: Features) -> Interval | None:
        reference = self.features["real"]
        if min(len(rows), len(reference)) < fewest(reference.shape[1]):
            return None
        return frechet_interval(rows, Gaussian.fit(reference), seed=self.seed)

    def _some(self, side: str, count: int) -> Features:
        rows = self.features[side]
        return rows[choose(len(rows), count, self.seed)]


def summary(found: Measurements) -> list[Estimate]:
    """Headline numbers."""
    n, unit = found.neighbours, f"squared units of {found.judge}"
    lines = [
        ("fidelity/precision", n.fidelity.precision, "share", "generated images in the real manifold"),
        ("fidelity/density", n.density.density, "", "real balls around a generated image, over k"),
        ("fidelity/clipped_density", n.clipped.density, "share", "of good images that would score the same"),
        ("fidelity/probabilistic_precision", n.probabilistic.precision, "share", ""),
        ("diversity/recall", n.fidelity.recall, "share", "real images in the generated manifold"),
        ("diversity/coverage", n.density.coverage, "share", "real balls with a generated image"),
        ("diversity/clipped_coverage", n.clipped.coverage, "share", "of good images that would score the same"),
        ("diversity/probabilistic_recall", n.probabilistic.recall, "share", ""),
        ("rarity/percentile", n.rarity.percentile, "share", "mean place among the radii of real images"),
        ("rarity/percentile_of_real", n.real_rarity.percentile, "share", "real images in the balls of the others"),
        ("rarity/score", n.rarity.mean, "units of the features", "mean radius"),
        ("rarity/undefined", n.rarity.undefined, "share", "generated images in no ball, which have no score"),
        ("distance/frechet", found.frechet, unit, "" if found.frechet is not None else "too few images"),
        ("distance/kernel", found.kernel, "", "0 is expected of equal distributions"),
    ]
    if found.frechet_of_training is not None:
        lines.append(("distance/frechet_of_training", found.frechet_of_training, unit, "training against real images"))
    if found.vendi is not None:
        lines.append(("variety/vendi", found.vendi[0], "images", "different ones that the set amounts to"))
        lines.append(("variety/vendi_of_real", found.vendi[1], "images", "as many real images"))
    if n.training is not None and n.real_training is not None:
        note = "farther from the nearest training image than that one is from the others"
        lines.append(("training/authentic", n.training.share, "share", note))
        lines.append(("training/authentic_of_real", n.real_training.share, "share", "the same of real images"))
        lines.append(("training/copies", n.training.copies, "share", "at distance 0 from a training image"))
    return [_line(name, value, unit, note, n.generated) for name, value, unit, note in lines]


def _line(name: str, value: Interval | None, unit: str, note: str, count: int) -> Estimate:
    if value is None:
        return Estimate(name=name, value=None, n=count, unit=unit, note=note)
    return estimate(name, value, unit, note)


def _width(found: Measurements) -> int:
    return found.features["real"].shape[1]


def reasons(found: Measurements) -> list[str]:
    """In words: what was compared, and what stands out."""
    n = found.neighbours
    inside, real = n.fidelity.precision, n.real_rarity.undefined
    text = [
        f"{n.generated:,} generated images are compared with {n.reference:,} real ones in the features of "
        f"{found.judge} ({short(found.digest)}), k = {n.neighbours}. Numbers compare only where all of these agree.",
        f"{inside.value:.1%} of the generated images lie in the real manifold, and {1 - real.value:.1%} of the real "
        "images in what the others span.",
        _rarity(n),
    ]
    if n.training is not None and n.real_training is not None:
        text.append(_novelty(n.training.share, n.real_training.share))
    return text


def _rarity(n: NeighbourMetrics) -> str:
    mine, real = n.rarity.percentile, n.real_rarity.percentile
    if not np.isfinite(mine.value):
        return "No generated image lies in a ball of the real ones, so none has a rarity."
    numbers = (
        f"at percentile {mine.value:.3f} [{mine.low:.3f}, {mine.high:.3f}] of the real radii on average, real images "
        f"at {real.value:.3f} [{real.low:.3f}, {real.high:.3f}]"
    )
    if mine.low > real.high:
        word = "Generated images are rarer than real ones"
    elif mine.high < real.low:
        word = "Generated images are more ordinary than real ones"
    else:
        word = "Generated images are about as rare as real ones"
    return f"{word}: those that have a score stand {numbers}."


def _novelty(mine: Interval, real: Interval) -> str:
    numbers = (
        f"{mine.value:.1%} [{mine.low:.1%}, {mine.high:.1%}] are farther from their nearest training image than that "
        f"one is from the others, of the real images {real.value:.1%} [{real.low:.1%}, {real.high:.1%}]"
    )
    if mine.high < real.low:
        return f"Generated images lie nearer to training images than real ones do, as copies would: {numbers}."
    if mine.low > real.high:
        return f"Generated images lie farther from training images than real ones do: {numbers}."
    return f"Generated images lie no nearer to training images than real ones do: {numbers}."


def sections(found: Measurements, skipped: Sequence[str]) -> list[Section]:
    """The parts of the report."""
    parts = [_quality(found, skipped), _rare(found)]
    return parts if found.neighbours.training is None else [*parts, _training(found)]


_COLUMNS = ("measure", "value", "low", "high", "n", "real images", "low", "high")


def _row(title: str, value: Interval | None, real: Interval | float | None = None) -> list[Cell]:
    """A line of a table: what generated images measure, and what real ones do or would be expected to."""
    if isinstance(real, float):
        beside: list[Cell] = [round(real, 4), None, None]
    else:
        beside = _rounded(real)
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


def not_done(found: Measurements) -> list[NotDone]:
    """What could not be measured, and why."""
    missing: list[NotDone] = []
    if found.neighbours.training is None:
        missing.append(
            NotDone(
                what="whether the images are new",
                reason="No training images were given.",
                remedy="pass what the generator was trained on with --train.",
            )
        )
    if found.frechet is None:
        missing.append(
            NotDone(
                what="Fréchet distance",
                reason=f"{_width(found)} features need at least {fewest(_width(found))} images on either side.",
                remedy="give more images, or features of fewer dimensions.",
            )
        )
    if found.vendi is None:
        missing.append(
            NotDone(
                what="Vendi score",
                reason="Some images have features that are all zero, and so no direction.",
                remedy="use other features.",
            )
        )
    return missing


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
