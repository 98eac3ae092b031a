"""How well a low dimension tells what is known to be memorized from what is known not to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.audit.geometry.complexity import explained, png_bits, residual
from vestige.audit.geometry.line import Line
from vestige.jobs.geometry_measure import Look
from vestige.jobs.geometry_points import Points
from vestige.metrics.interval import Interval, bootstrap
from vestige.metrics.roc import auc, tpr_at_fpr

Index = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

MANY = 64
"""Rows of the training data from which an image counts as one that the data hold many times."""

FEW = 5
"""Fewer points on a side are not compared."""

RATE = 0.01
"""False positive rate at which the true positive rate is quoted."""


@dataclass(frozen=True, eq=False)
class Side:
    """Points of one kind: what they are called, their dimension and their complexity in bits, [n]."""

    name: str
    dimension: Doubles
    bits: Index
    levels: Doubles
    """The whole curve, [n, levels]."""

    def take(self, name: str, mask: Flags) -> Side:
        """Some of them under another name."""
        return Side(name, self.dimension[mask], self.bits[mask], self.levels[mask])


@dataclass(frozen=True, eq=False)
class Separation:
    """One comparison: points that should be low against points that should not.

    ``raw`` and ``corrected`` are the AUROC and the true positive rate at a false positive rate of 1 % of the negative
    dimension, before and after the complexity of the images is accounted for.
    """

    name: str
    positive: Side
    negative: Side
    raw: tuple[Interval, Interval]
    corrected: tuple[Interval, Interval] | None
    trusted: bool
    """Whether there are negatives enough to quote the rate."""


@dataclass(frozen=True, eq=False)
class Sides:
    """Points by the truth, where it is known, the non-members, and what complexity explains of their dimension."""

    points: Side
    controls: Side
    line: Line | None
    pairs: tuple[tuple[str, Side, Side], ...]

    def residual(self, side: Side) -> Doubles | None:
        """What complexity leaves of the dimensions of a side [n]; None where it is unknown what it explains."""
        return None if self.line is None else residual(self.line, side.bits, side.dimension)


def sides(look: Look, points: Points, extracted: Flags | None) -> Sides:
    """Take points and non-members apart by what is known of them.

    ``extracted`` [n] says which training images came out of the model, where an audit knows.
    """
    every = Side("points", look.points.value, png_bits(points.images.pixels), look.points.curve.dimension)
    bits = np.empty(0, np.int64) if points.controls is None else png_bits(points.controls.pixels)
    controls = Side("non-members", look.controls.value, bits, look.controls.curve.dimension)
    line = explained(controls.bits, controls.dimension) if np.isfinite(controls.dimension).sum() >= FEW else None
    pairs: list[tuple[str, Side, Side]] = []
    if points.copying is not None:
        copies = every.take("copies", points.copying.copied)
        pairs.append(("copied", copies, every.take("other generations", ~points.copying.copied)))
        pairs.append(("copied", copies, controls))
    else:
        once = every.take("seen once", points.copies == 1)
        many = every.take(f"at least {MANY} copies", points.copies >= MANY)
        pairs += [(f"copies>={MANY}", many, once), (f"copies>={MANY}", many, controls)]
        if extracted is not None:
            out = every.take("seen once and extracted", (points.copies == 1) & extracted)
            pairs.append(("extracted", out, every.take("seen once, not extracted", (points.copies == 1) & ~extracted)))
        pairs.append(("seen once", once, controls))
    return Sides(every, controls, line, tuple(pairs))


def separations(found: Sides, seed: int) -> list[Separation]:
    """Every comparison that has at least ``FEW`` determined points on both sides."""
    done: list[Separation] = []
    for name, positive, negative in found.pairs:
        low, high = _known(positive), _known(negative)
        if min(len(low.dimension), len(high.dimension)) < FEW:
            continue
        corrected = None
        if found.line is not None:
            parts = [-residual(found.line, side.bits, side.dimension) for side in (low, high)]
            corrected = rates(parts[0], parts[1], seed)
        raw = rates(-low.dimension, -high.dimension, seed)
        trusted = tpr_at_fpr(-low.dimension, -high.dimension, RATE).enough_negatives
        done.append(Separation(name, positive, negative, raw, corrected, trusted))
    return done


def rates(low: Doubles, high: Doubles, seed: int) -> tuple[Interval, Interval]:
    """AUROC and true positive rate at 1 % false positives of scores [m] against scores [n], higher = lower dimension.

    Percentile bootstrap over both sides, so that the rate's interval holds the uncertainty of its threshold too. Where
    no resample differs, as at complete separation, the bootstrap knows nothing, and the exact interval is given.
    """

    return (
        _interval(_area, auc(low, high), low, high, seed),
        _interval(_rate, tpr_at_fpr(low, high, RATE).interval, low, high, seed),
    )


def _area(low: Doubles, high: Doubles) -> float:
    """The value of :func:`auc`, from whole numbers and so without rounding, a thousand times over."""
    ordered = np.sort(high)
    wins = np.searchsorted(ordered, low, "left") + np.searchsorted(ordered, low, "right")
    return int(wins.sum()) / (2 * low.size * high.size)


def _rate(low: Doubles, high: Doubles) -> float:
    """The value of :func:`tpr_at_fpr`: the share of ``low`` above all but the highest 1 % of ``high``."""
    allowed = int(RATE * high.size * (1 + 1e-12))
    return float((low > np.sort(high)[high.size - allowed - 1]).mean())


def _interval(statistic: Callable[..., float], exact: Interval, low: Doubles, high: Doubles, seed: int) -> Interval:
    found = bootstrap(statistic, low, high, seed=seed)
    return exact if found.low == found.high else found


def by_level(found: Sides, positive: Side, negative: Side, corrected: bool) -> list[Interval | None]:
    """AUROC at each noise level, with its exact interval; None where too few points are determined."""
    areas: list[Interval | None] = []
    for level in range(positive.levels.shape[1]):
        low, high = (_known(_at(side, level)) for side in (positive, negative))
        if min(len(low.dimension), len(high.dimension)) < FEW:
            areas.append(None)
            continue
        scores = [-low.dimension, -high.dimension]
        if corrected:
            normal = _known(_at(found.controls, level))
            line = explained(normal.bits, normal.dimension)
            scores = [-residual(line, side.bits, side.dimension) for side in (low, high)]
        areas.append(auc(scores[0], scores[1]) if all(np.isfinite(s).all() for s in scores) else None)
    return areas


def _at(side: Side, level: int) -> Side:
    return Side(side.name, side.levels[:, level], side.bits, side.levels)


def _known(side: Side) -> Side:
    return side.take(side.name, np.isfinite(side.dimension))
