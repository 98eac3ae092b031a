"""Fidelity and diversity from nearest-neighbour balls: precision, recall, density and coverage.

Every ball is closed, so that an exact copy of a row lies in its ball even where copies make its radius zero. Answers
equal brute force, near-duplicates and ties included, while memory stays bounded (see :mod:`vestige.metrics.tiles`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.metrics.arrays import FloatArray, IndexArray, count, features, open_unit, same_width
from vestige.metrics.balls import Balls, Held
from vestige.metrics.interval import Interval, beta_bounds, t_quantile
from vestige.metrics.jackknife import one_group
from vestige.metrics.tiles import Side, Tiles

__all__ = ["Balls", "DensityCoverage", "PrecisionRecall", "density_coverage", "expected_coverage", "precision_recall"]


def share_interval(holds: IndexArray, alone: IndexArray, confidence: float) -> Interval:
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
    m, n = one_group(len(generated.centres)), one_group(len(reference.centres))
    precise, recalled = (
        Held(Side.SECOND, reference.squared_radii, n, m),
        Held(Side.FIRST, generated.squared_radii, m, n),
    )
    for tile in Tiles(generated.centres, reference.centres):
        precise.add(tile)
        recalled.add(tile)
    return PrecisionRecall(rows_inside(precise, confidence), rows_inside(recalled, confidence))


def rows_inside(held: Held, confidence: float) -> Interval:
    """Share of the rows that lie in at least one ball, from the counts of a finished pass."""
    return share_interval(held.balls_of_row, held.alone_by_ball, confidence)


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
    rows = features(generated, "generated features")
    same_width(rows, reference.centres, "generated and reference features")
    held = Held(Side.SECOND, reference.squared_radii, one_group(len(reference.centres)), one_group(len(rows)))
    for tile in Tiles(rows, reference.centres):
        held.add(tile)
    return density_coverage_of(held, reference.neighbours, confidence)


def density_coverage_of(held: Held, neighbours: int, confidence: float) -> DensityCoverage:
    """Return density and coverage from the counts of a finished pass."""
    by_row, by_ball = held.balls_of_row, held.rows_of_ball
    m, n = by_row.size, by_ball.size
    return DensityCoverage(
        _density_interval(by_row / neighbours, n / (m * neighbours) * by_ball.astype(np.float64), confidence),
        share_interval(by_ball, held.alone_by_row, confidence),
        expected_coverage(m, n, neighbours),
    )
