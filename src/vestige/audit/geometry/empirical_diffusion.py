"""The dimension that a perfect memorizer of a reference has, in closed form."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vestige.audit.geometry.distances import Field, in_parts, processors, strips, subtracted
from vestige.audit.geometry.estimate import Curve, Dimension, Doubles, Integers, Reading
from vestige.audit.geometry.estimator import DataEstimator, Vectors, Work
from vestige.audit.geometry.levels import RATIOS, check_ratios
from vestige.audit.geometry.neighbourhood import WITHIN, prepared, read_at

_DOUBTFUL = 1e8  # times the error of a product below which a distance is taken anew, by subtraction
_ENOUGH = 8.0  # rows that an average must rest on for its jackknife error to mean anything
_ATOM = 1e-6  # dimension at the finest level up to which a point is an atom
_SPAN = 2.0  # least factor of noise ratios that a plateau spans
_CUT = 36.0  # natural logarithms by which a weight lies below the largest from which it is left out
_CELL = 128  # bytes that a distance costs at the worst moment
_PIXEL = 127.5  # grey values in one unit of a pixel in [-1, 1]


@dataclass(frozen=True)
class EmpiricalDiffusion(DataEstimator):
    """FLIPD of the exact denoiser of the reference itself: what a model that only memorized would show.

    With noise ratio ``r = sigma / alpha``, squared distances ``s_i`` to the distinct rows and their counts ``c_i``,

        w_i proportional to c_i exp(-s_i / 2 r^2),   LID = sum_i w_i s_i / r^2

    clamped to [0, ambient]. It is 0 where a copy outweighs the rest. Without a copy it passes the dimension of the data
    where many rows share the weight and grows without bound below their spacing. With ``same_index`` it is what the
    data without this one copy say.

    The standard error is the infinitesimal jackknife over rows, ``sum_i (w_i (s_i / r^2 - LID))^2 / c_i``; it is
    unknown where fewer than 8 rows share the weight, unless a copy has it.

    Parameters
    ----------
    ratios : noise ratios of the curve, in the units of the points; of uint8 pixels, in those of pixels in [-1, 1]. The
        finest should lie below the spacing of the data: it decides whether a point is an atom.

    Source: the identity of FLIPD (Kamkari et al. 2024, arXiv 2406.03537) for the empirical distribution.
    """

    claim: ClassVar[str] = "dimension of a perfect memorizer of the data around a point, at each noise level"
    source: ClassVar[str] = "Kamkari et al. 2024, arXiv 2406.03537"

    ratios: tuple[float, ...] = RATIOS

    def __post_init__(self) -> None:
        """Raise InvalidInput unless there is a noise level and all are positive."""
        check_ratios(self.ratios)

    def curve(self, queries: Vectors, reference: Vectors, *, same_index: bool = False, work: Work) -> Curve:
        """Dimension at queries [q, d] over noise ratios; NaN where no row is left.

        Raises
        ------
        InvalidInput, ShapeMismatch, EmptySet : as for :func:`~vestige.audit.geometry.neighbourhood.prepared`.
        """
        ratios = np.unique(np.array(self.ratios, np.float64))
        points, rows = prepared(queries, reference, same_index=same_index)
        ambient = points.shape[1]
        field, pixels = Field.of(rows.rows), points.dtype == np.uint8
        threads = 1 if pixels else processors()  # the engine of images has threads of its own
        dimension, error = np.full((2, len(points), len(ratios)), np.nan)

        def measure(some: slice) -> None:
            for part, distance2, off in strips(points[some], field, per_cell=_CELL, budget=work.budget // threads):
                at = slice(some.start + part.start, some.start + part.stop)
                _sharpen(distance2, points[at], rows.rows, off)
                counts = np.tile(rows.counts.astype(np.float64), (len(distance2), 1))
                if same_index:
                    counts[np.arange(len(counts)), rows.place[at]] -= 1
                if pixels:
                    distance2 /= _PIXEL**2
                dimension[at], error[at] = _over(ratios, distance2, counts)

        in_parts(len(points), 16 * len(ratios), work.budget, measure, threads)
        return Curve(ratios, np.clip(dimension, 0, ambient), error, ambient)

    def read(self, curve: Curve) -> Dimension:
        """0 of an atom; else the longest stretch of levels that share a value within their errors, in its middle.

        A stretch spans at least a factor of two, and the error covers it: its spread is taken as that of an even
        distribution. A single level is read as given.
        """
        atom = (curve.dimension[:, 0] <= _ATOM) & (curve.error[:, 0] <= _ATOM)
        if len(curve.scale) == 1:
            level, found = np.where(np.isfinite(curve.dimension[:, 0]), 0, -1), Reading.GIVEN
            spread = np.zeros(len(level))
        else:
            level, spread, found = *_stretch(curve), Reading.PLATEAU
        whole = read_at(curve, np.where(atom, 0, level), atom, found)
        error = np.hypot(whole.error, spread / np.sqrt(12))
        return replace(whole, value=np.where(atom, 0.0, whole.value), error=np.where(atom, 0.0, error))


def _sharpen(distance2: Doubles, queries: Vectors, rows: Vectors, off: Doubles) -> None:
    """Take short distances anew, so that all are right to eight digits and those of copies are 0."""
    if off.any():
        query, row = np.nonzero(distance2 <= _DOUBTFUL * off[:, None])
        distance2[query, row] = subtracted(queries[query], rows[row])


def _over(ratios: Doubles, distance2: Doubles, counts: Doubles) -> tuple[Doubles, Doubles]:
    """Dimension and error [n, levels] from squared distances and counts [n, m], where rows counted 0 are not there."""
    nearest = np.where(counts > 0, distance2, np.inf).min(1)
    nearest[~np.isfinite(nearest)] = 0
    there = np.flatnonzero(counts > 0)
    query, counts = there // distance2.shape[1], counts.ravel()[there]
    beyond = distance2.ravel()[there] - nearest[query]
    dimension, error = np.empty((2, len(distance2), len(ratios)))
    for place in range(len(ratios))[::-1]:
        # A finer level sees a part of what a coarser one sees.
        inside = beyond <= 2 * _CUT * ratios[place] ** 2
        query, counts, beyond = query[inside], counts[inside], beyond[inside]
        dimension[:, place], error[:, place] = _weighted(nearest, beyond, counts, query, ratios[place] ** 2)
    return dimension, error


def _weighted(
    nearest: Doubles, beyond: Doubles, counts: Doubles, query: Integers, scale2: float
) -> tuple[Doubles, Doubles]:
    """Dimension and error [n] at one level from what each of the rows near a query [p] lies beyond its nearest."""

    def sums(terms: Doubles) -> Doubles:
        return np.bincount(query, terms, len(nearest)).astype(np.float64, copy=False)  # of nothing they are integers

    beyond = beyond / scale2
    alone = np.exp(-beyond / 2)
    weight = alone * counts
    total = sums(weight)
    known = total > 0
    mean = np.divide(sums(weight * beyond), total, out=np.full(total.shape, np.nan), where=known)
    weight *= alone
    squares = sums(weight)
    beyond -= mean[query]
    error = np.divide(np.sqrt(sums(weight * beyond * beyond)), total, out=np.full(total.shape, np.nan), where=known)
    few = (np.square(total) < _ENOUGH * squares) & (nearest > 0)
    return mean + nearest / scale2, np.where(few, np.nan, error)


def _stretch(curve: Curve) -> tuple[Integers, Doubles]:
    """The middle level [n] of the longest stretch that shares a value within its errors, -1 without one, and how far
    the stretch spreads [n]."""
    n, width = curve.dimension.shape
    usable = np.isfinite(curve.dimension) & np.isfinite(curve.error)
    low = np.where(usable, curve.dimension - WITHIN * curve.error, np.inf)
    high = np.where(usable, curve.dimension + WITHIN * curve.error, -np.inf)
    begin, end = np.zeros(n, np.int64), np.full(n, -1)
    for first in range(width):
        least, most = low[:, first], high[:, first]
        for last in range(first + 1, width):
            least, most = np.maximum(least, low[:, last]), np.minimum(most, high[:, last])
            if curve.scale[last] < curve.scale[first] * _SPAN * (1 - 1e-9):
                continue
            longer = (least <= most) & (last - first > end - begin)
            begin, end = np.where(longer, first, begin), np.where(longer, last, end)
    place, none = np.arange(width), end < 0
    inside = (place >= begin[:, None]) & (place <= end[:, None])
    highest = np.where(inside, curve.dimension, 0).max(1)
    lowest = np.where(inside, curve.dimension, highest[:, None]).min(1)
    return np.where(none, -1, (begin + end) // 2), highest - lowest
