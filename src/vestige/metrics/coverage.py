"""Fidelity and diversity from nearest-neighbour balls: precision, recall, density and coverage.

Every ball is closed and its radius is the Euclidean distance from its centre to its k-th nearest neighbour
in the same set, the centre itself not counted. Distances are screened with a matrix product and every
comparison that rounding could turn is decided by direct differences, so the answers equal brute force,
near-duplicates and ties included, while memory stays bounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.metrics.arrays import FloatArray, count, matrix, open_unit, same_width
from vestige.metrics.interval import Interval, beta_bounds, t_quantile

_CELLS = 1 << 22
"""Entries of the largest temporary array (32 MiB in float64)."""

BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.int64]


def _blocks(rows: int, width: int) -> Iterator[slice]:
    step = max(1, _CELLS // width)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def _bounds(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lower and upper bounds [a, b] of the squared distances between the rows of both arrays."""
    norms = np.sum(first * first, axis=1)[:, None] + np.sum(second * second, axis=1)[None, :]
    # |fl(x.y) - x.y| <= d u |x||y| to first order (Higham, Accuracy and Stability, ch. 3), and likewise for
    # the norms and for direct differences; the factor leaves room for all of them.
    margin = 4.0 * (first.shape[1] + 4) * np.finfo(np.float64).eps * norms
    squared = norms - 2.0 * (first @ second.T)
    return squared - margin, squared + margin


def _direct(first: FloatArray, i: IndexArray, second: FloatArray, j: IndexArray) -> FloatArray:
    """Squared distances of the pairs (first[i], second[j]) from differences."""
    squared = np.empty(i.size)
    for block in _blocks(i.size, first.shape[1]):
        gap = first[i[block]] - second[j[block]]
        squared[block] = np.sum(gap * gap, axis=1)
    return squared


def _squared_radii(rows: FloatArray, neighbours: int) -> FloatArray:
    """Squared distance of every row to its k-th nearest other row."""
    radii = np.empty(len(rows))
    for block in _blocks(len(rows), len(rows)):
        low, high = _bounds(rows[block], rows)
        own = np.arange(block.start, block.stop)
        low[own - block.start, own] = high[own - block.start, own] = np.inf
        limit = np.partition(high, neighbours - 1, axis=1)[:, neighbours - 1]
        i, j = np.nonzero(low <= limit[:, None])
        squared = _direct(rows[block], i, rows, j)
        order = np.lexsort((squared, i))
        starts = np.searchsorted(i, np.arange(len(own)))
        radii[block] = squared[order][starts + neighbours - 1]
    return radii


@dataclass(frozen=True, eq=False)
class Balls:
    """A feature set as a union of balls: ``centres`` [n, d], ``squared_radii`` [n], ``neighbours`` k.

    Build it once for the reference with :meth:`around` and compare many sets with it.
    """

    centres: FloatArray
    squared_radii: FloatArray
    neighbours: int

    @staticmethod
    def around(features: npt.ArrayLike, neighbours: int) -> Balls:
        """Return the balls of ``features`` [n, d], n > ``neighbours`` >= 1. Raises EmptySet or InvalidInput."""
        neighbours = count(neighbours, "neighbours", 1)
        centres = matrix(features, "features", rows=neighbours + 1)
        return Balls(centres, _squared_radii(centres, neighbours), neighbours)


def _inside(points: FloatArray, centres: FloatArray, squared_radii: FloatArray) -> BoolArray:
    """Whether each point [a] lies in the ball of each centre [b]: an array [a, b]."""
    low, high = _bounds(points, centres)
    inside = high <= squared_radii
    i, j = np.nonzero((low <= squared_radii) & ~inside)
    inside[i, j] = _direct(points, i, centres, j) <= squared_radii[j]
    return inside


def _share_interval(holds: IndexArray, alone: IndexArray, confidence: float) -> Interval:
    """Share of items with ``holds`` [n] > 0, where ``alone`` [m] counts the items that only one holder keeps.

    The items share the holders, so a binomial interval over items is far too narrow. Its variance is
    s (1-s) / n for the items plus the leave-one-out jackknife variance over the m holders (balls keep their
    radii), and the bounds are Clopper-Pearson's at the number of independent items that would have that
    variance (Korn and Graubard, Survey Methodology 24, 1998), or at min(m, n) when the share is 0 or 1.
    """
    n, m = holds.size, alone.size
    share = int(np.count_nonzero(holds)) / n
    by_items = share * (1.0 - share) / n
    by_holders = (m - 1) / m * float(np.sum((alone - alone.mean()) ** 2)) / n**2
    independent = n * by_items / (by_items + by_holders) if by_items > 0 else min(m, n)
    low, high = beta_bounds(share * independent, independent, open_unit(confidence, "confidence"))
    return Interval(share, low, high, n)


def _share_inside(points: FloatArray, balls: Balls, confidence: float) -> Interval:
    """Share of the points that lie in at least one ball."""
    holds, alone = np.zeros(len(points), dtype=np.int64), np.zeros(len(balls.centres), dtype=np.int64)
    for block in _blocks(len(points), len(balls.centres)):
        inside = _inside(points[block], balls.centres, balls.squared_radii)
        holds[block] = inside.sum(axis=1)
        alone += inside[holds[block] == 1].sum(axis=0)
    return _share_interval(holds, alone, confidence)


@dataclass(frozen=True)
class PrecisionRecall:
    """Share of generated rows inside the reference balls, and of reference rows inside the generated balls."""

    precision: Interval
    recall: Interval


def precision_recall(generated: Balls, reference: Balls, confidence: float = 0.95) -> PrecisionRecall:
    """Return improved precision and recall, each in [0, 1], with intervals over the sampling of both sets.

    Precision is the share of the m generated rows in any ball of the reference, recall the share of the n
    reference rows in any ball of the generated set; the paper uses k = 3. Both depend on m, n and k: compare
    only values that agree in these. The intervals account for the balls being a sample too, where a binomial
    interval over the counted rows would not; they cover the value expected at this m, n and k.
    Source: Kynkäänniemi et al. 2019, arXiv 1904.06991. Raises InvalidInput if the numbers of features differ.
    """
    same_width(generated.centres, reference.centres, "generated and reference features")
    return PrecisionRecall(
        _share_inside(generated.centres, reference, confidence), _share_inside(reference.centres, generated, confidence)
    )


@dataclass(frozen=True)
class DensityCoverage:
    """Density (>= 0, may exceed 1; 1 expected for equal distributions) and coverage (in [0, 1]).

    ``expected_coverage`` is the coverage to be expected when both sets come from one distribution.
    """

    density: Interval
    coverage: Interval
    expected_coverage: float


def expected_coverage(generated: int, reference: int, neighbours: int) -> float:
    """Return the expected coverage for equal continuous distributions: 1 - prod_{i=1..k} (n - i) / (m + n - i).

    With m ``generated`` and n ``reference`` rows. Source: Naeem et al. 2020, arXiv 2002.09797, lemma 2.
    """
    steps = np.arange(1, count(neighbours, "neighbours", 1) + 1)
    m, n = count(generated, "generated", 1), count(reference, "reference", int(steps[-1]) + 1)
    return float(1.0 - np.prod((n - steps) / (m + n - steps)))


def _density_interval(by_row: FloatArray, by_ball: FloatArray, confidence: float) -> Interval:
    """Interval of the common mean of the densities of rows [m] and of balls [n]."""
    m, n, confidence = by_row.size, by_ball.size, open_unit(confidence, "confidence")
    density = float(by_row.mean())
    if min(m, n) == 1:
        return Interval(density, 0.0, math.inf, m)
    error = math.sqrt(float(by_row.var(ddof=1)) / m + float(by_ball.var(ddof=1)) / n)
    half = t_quantile(min(m, n) - 1, confidence) * error
    return Interval(density, max(0.0, density - half), density + half, m)


def density_coverage(generated: npt.ArrayLike, reference: Balls, confidence: float = 0.95) -> DensityCoverage:
    """Return density and coverage of ``generated`` [m, d] against the balls of the reference.

    Density is the mean over generated rows of (number of reference balls that hold it) / k; its interval is
    Student's, with the variance between rows / m plus the variance between balls / n. Coverage is the share of
    reference balls that hold at least one generated row, with an interval as in :func:`precision_recall`.
    The paper uses k = 5. Source: Naeem et al. 2020, arXiv 2002.09797. Raises EmptySet or InvalidInput.
    """
    rows = matrix(generated, "generated features")
    same_width(rows, reference.centres, "generated and reference features")
    m, n = len(rows), len(reference.centres)
    held, holds = np.zeros(m, dtype=np.int64), np.zeros(n, dtype=np.int64)
    owner = np.zeros(n, dtype=np.int64)
    for block in _blocks(m, n):
        inside = _inside(rows[block], reference.centres, reference.squared_radii)
        held[block] = inside.sum(axis=1)
        here = inside.sum(axis=0)
        owner = np.where(here > 0, block.start + inside.argmax(axis=0), owner)
        holds += here
    alone = np.bincount(owner[holds == 1], minlength=m)
    return DensityCoverage(
        _density_interval(
            held / reference.neighbours, n / (m * reference.neighbours) * holds.astype(np.float64), confidence
        ),
        _share_interval(holds, alone, confidence),
        expected_coverage(m, n, reference.neighbours),
    )
