"""How good the generations are, beside what they copy: a model that makes nothing like its data copies nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.audit.membership.rows import choose
from vestige.data.split import Split
from vestige.digest import short
from vestige.features.extractor import FeatureExtractor
from vestige.metrics.coverage import Balls, precision_recall
from vestige.metrics.frechet import Gaussian, frechet_interval
from vestige.metrics.interval import Interval, estimate
from vestige.randomness import Stream, generator
from vestige.record import Cell, Estimate, Section, Table

Floats = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]

NEIGHBOURS = 3
"""Of precision and recall, as in Kynkäänniemi et al. 2019."""

FEWEST, MOST = 50, 5000
"""Fewer rows on a side than the first (or than features) are not compared; of more than the second, so many are."""


@dataclass(frozen=True, eq=False)
class Scene:
    """Features of the generations [g, d] and of the images they are compared with [n, d].

    ``floor`` holds as many training images as there are generations, where there are that many, or None when the
    training images themselves are the reference. ``against`` names the reference, ``judge`` and
    ``digest`` the features.
    """

    generated: Floats
    reference: Floats
    floor: Floats | None
    against: str
    judge: str
    digest: str

    def first(self, count: int) -> Scene:
        """The same, of the first generations only; the floor keeps as many rows."""
        floor = None if self.floor is None else self.floor[:count]
        return Scene(self.generated[:count], self.reference, floor, self.against, self.judge, self.digest)


@dataclass(frozen=True, eq=False)
class Quality:
    """Summary lines and section of the report."""

    summary: tuple[Estimate, ...]
    section: Section


def scene(pixels: Pixels, who: Split, features: FeatureExtractor, seed: int) -> Scene:
    """Features of generations uint8 [g, c, h, w] and of what they are compared with.

    The reference are the non-members or, where there are none, the distinct training images; at most ``MOST`` of
    either, drawn by ``seed``.
    """
    others = who.others
    images = who.members if others is None else others
    reference = images.pixels[choose(len(images), MOST, seed)]
    floor: Floats | None = None
    if others is not None:
        rows = choose(len(who.members), min(len(pixels), MOST), seed)
        # Shuffled, so that the first of them are a random part as well.
        shuffled = generator(seed, Stream.SUBSET, len(rows), draw=1).permutation(rows)
        floor = features.features(who.members.pixels[shuffled])
    against = f"{len(reference):,} " + ("distinct training images" if others is None else "non-members")
    return Scene(
        features.features(pixels),
        features.features(reference),
        floor,
        against,
        features.name,
        features.digest,
    )


def frechet(rows: Floats, reference: Floats, seed: int) -> Interval | None:
    """Fréchet distance of rows [m, d] to reference rows [n, d]; None where either are too few for their width."""
    if min(len(rows), len(reference)) < fewest(reference.shape[1]):
        return None
    return frechet_interval(rows, Gaussian.fit(reference), seed=seed)


def fewest(width: int) -> int:
    """How many rows of so many features a comparison needs: more than features, and ``FEWEST``."""
    return max(FEWEST, width + 1)


def judge_quality(found: Scene, seed: int) -> Quality:
    """Fréchet distance with its floor, precision and recall, each None with a note where there are too few images."""
    count, width = len(found.generated), found.reference.shape[1]
    unit = f"squared units of {found.judge}"
    sides = f"{count:,} generations against {found.against}; features {short(found.digest)}"
    missing = f"{sides}; at least {fewest(width)} of both are needed"
    distance = frechet(found.generated, found.reference, seed)
    lines = [
        Estimate(name="quality/frechet", value=None, n=count, unit=unit, note=missing)
        if distance is None
        else estimate("quality/frechet", distance, unit, sides),
        _floor(found, unit, seed),
    ]
    shares = ("share of generations among the reference", "share of the reference among generations")
    if distance is None:
        pairs = zip(("precision", "recall"), shares, strict=True)
        lines += [Estimate(name=f"quality/{n}", value=None, n=count, unit=u, note=missing) for n, u in pairs]
    else:
        both = precision_recall(
            Balls.around(found.generated[:MOST], NEIGHBOURS), Balls.around(found.reference, NEIGHBOURS)
        )
        note = f"{min(count, MOST):,} generations against {found.against}, {NEIGHBOURS} neighbours"
        lines.append(estimate("quality/precision", both.precision, shares[0], note))
        lines.append(estimate("quality/recall", both.recall, shares[1], note))
    return Quality(tuple(lines), _section(lines, found))


def _floor(found: Scene, unit: str, seed: int) -> Estimate:
    name = "quality/frechet_floor"
    if found.floor is None:
        return Estimate(name=name, value=None, unit=unit, note="without non-members there is nothing to compare with")
    note = f"{len(found.floor):,} distinct training images against {found.against}"
    distance = frechet(found.floor, found.reference, seed)
    if distance is None:
        return Estimate(name=name, value=None, n=len(found.floor), unit=unit, note=f"{note}: too few")
    return estimate(name, distance, unit, note)


def _section(lines: list[Estimate], found: Scene) -> Section:
    rows: list[list[Cell]] = [
        [title, *(None if v is None else round(v, 4) for v in (line.value, line.low, line.high)), line.n]
        for title, line in zip(
            (
                "Fréchet distance of the generations",
                "the same of training images: the floor",
                "precision: generations that look like the reference",
                "recall: reference that the generations reach",
            ),
            lines,
            strict=True,
        )
    ]
    words = [
        f"{len(found.generated):,} generations are compared with {found.against}, in the features of {found.judge}. "
        "A distance falls with better quality and rises with fewer images: compare only equal numbers, in the same "
        "features, with the same reference."
    ]
    value, floor = lines[0].value, lines[1].value
    if value is None:
        words.append(f"Too few images for a measurement: {lines[0].note}.")
    elif floor is not None:
        words.append(
            f"The distance is {value:.4g}; as many training images as there are generations, or all of them, lie at "
            f"{floor:.4g} from the same reference, which a perfect generator could not be expected to go below."
        )
    elif found.floor is None:
        words.append("The reference are the training images themselves, so that copies count as quality.")
    table = Table(
        name="quality",
        title="Quality of the generations",
        columns=["measure", "value", "low", "high", "images"],
        rows=rows,
        caption=f"Features: {found.judge} ({short(found.digest)}).",
    )
    return Section(name="quality", title="Quality: how good the generations are", text=words, tables=[table])
