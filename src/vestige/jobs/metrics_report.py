"""What ``vestige metrics`` measured, in summary lines and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vestige.audit.membership.rows import choose
from vestige.data.images import ImageSet
from vestige.digest import short
from vestige.errors import InvalidInput
from vestige.jobs.quality import fewest
from vestige.metrics.arrays import Features
from vestige.metrics.frechet import Gaussian, frechet_interval, kernel_distance
from vestige.metrics.interval import Interval, estimate
from vestige.metrics.neighbours import NeighbourMetrics
from vestige.metrics.vendi import vendi_score
from vestige.record import Estimate, NotDone


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
