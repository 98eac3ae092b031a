"""The rarity score: how thinly the reference is spread where a generated row lies."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.metrics.arrays import FloatArray, features, same_width
from vestige.metrics.balls import Balls, Held, among_themselves
from vestige.metrics.coverage import rows_inside
from vestige.metrics.interval import Interval
from vestige.metrics.jackknife import around, dealt, one_group, variance_of_mean
from vestige.metrics.tiles import Side, Tiles
from vestige.progress import Progress, Silent


@dataclass(frozen=True, eq=False)
class Rarity:
    """Rarity of m rows against the balls of n reference rows.

    Parameters
    ----------
    scores : [m] in units of feature distance, the radius of the smallest ball that holds the row; NaN for a row in no
        ball, of which nothing can be said. They compare only within one extractor, reference and k.
    percentiles : [m] in (0, 1), the share of the reference's radii below the score, equal ones half; NaN as above.
    mean, percentile : means over the rows that have a score; ``n`` is their number.
    undefined : share of rows in no ball, in [0, 1]. A mean says nothing without it.
    """

    scores: FloatArray
    percentiles: FloatArray
    mean: Interval
    percentile: Interval
    undefined: Interval

    @property
    def inside(self) -> npt.NDArray[np.bool_]:
        """Whether each row [m] lies in the reference manifold, the union of its balls."""
        return ~np.isnan(self.scores)


def rarity_score(
    generated: npt.ArrayLike,
    reference: Balls,
    *,
    seed: int = 0,
    confidence: float = 0.95,
    progress: Progress | None = None,
) -> Rarity:
    """Return the rarity of ``generated`` [m, d] against the balls of the reference.

    RS(x) = min { R_i : |x - x_i| <= R_i }, R_i the distance of reference row x_i to its k-th nearest other one; the
    paper uses k = 3. Its public code asks for strictly less, and writes 0 for rows in no ball. Intervals are Student's,
    with the variance between rows plus a jackknife over ``seed``-dealt groups of the reference.
    Source: Han et al. 2023, arXiv 2206.08549. Raises EmptySet or InvalidInput.
    """
    rows = features(generated, "generated features")
    same_width(rows, reference.centres, "generated and reference features")
    groups = dealt(len(reference.centres), seed)
    held = Held(Side.SECOND, reference.squared_radii, groups, one_group(len(rows)))
    for tile in Tiles(rows, reference.centres).watched(progress or Silent(), "rarity"):
        held.add(tile)
    return rarity_of(held, reference, confidence)


def rarity_of_reference(
    reference: Balls, *, seed: int = 0, confidence: float = 0.95, progress: Progress | None = None
) -> Rarity:
    """Return the rarity of every reference row against the balls of the others: what real rows score.

    A row lies in another's ball if it is among that one's k nearest, so a share of them has no score either. The
    intervals take rows and balls for two samples, which they are not.
    """
    groups = dealt(len(reference.centres), seed)
    held = among_themselves(reference, reference.squared_radii, groups, progress or Silent())
    return rarity_of(held, reference, confidence)


def rarity_of(held: Held, reference: Balls, confidence: float = 0.95) -> Rarity:
    """Return the rarity that the counts of a finished pass give."""
    ordered = np.sort(reference.squared_radii)
    best = held.least.min(axis=1)
    left_out = _without_each_group(held.least)
    places = [_percentile(ordered, best), *(_percentile(ordered, part) for part in left_out.T)]
    radii = [_radius(best), *(_radius(part) for part in left_out.T)]
    shared = rows_inside(held, confidence)
    return Rarity(
        scores=radii[0],
        percentiles=places[0],
        mean=_mean(radii, confidence, (0.0, math.inf)),
        percentile=_mean(places, confidence, (0.0, 1.0)),
        undefined=Interval(1.0 - shared.value, 1.0 - shared.high, 1.0 - shared.low, shared.n),
    )


def _without_each_group(least: FloatArray) -> FloatArray:
    """Smallest entry of each row [rows, groups] without each of its columns in turn."""
    best = least.argmin(axis=1)
    lowest, second = np.partition(least, 1, axis=1)[:, :2].T
    return np.where(np.arange(least.shape[1]) == best[:, None], second[:, None], lowest[:, None])


def _radius(squared: FloatArray) -> FloatArray:
    return np.sqrt(np.where(np.isfinite(squared), squared, np.nan))


def _percentile(ordered: FloatArray, squared: FloatArray) -> FloatArray:
    below = np.searchsorted(ordered, squared, "left") + np.searchsorted(ordered, squared, "right")
    return np.where(np.isfinite(squared), below / (2.0 * ordered.size), np.nan)


def _mean(values: list[FloatArray], confidence: float, within: tuple[float, float]) -> Interval:
    """Mean of the defined values of all balls, first, with those found without each group."""
    defined = [part[~np.isnan(part)] for part in values]
    means = np.array([part.mean() if part.size else math.nan for part in defined])
    return around(float(means[0]), variance_of_mean(defined[0]), means[1:], defined[0].size, confidence, within)
