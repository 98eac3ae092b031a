"""Clipped density and coverage: read as the share of good samples that would score the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaln, gammaln

from vestige.metrics.arrays import FloatArray, count
from vestige.metrics.balls import Balls, Held
from vestige.metrics.interval import Interval
from vestige.metrics.jackknife import around, variance_of_mean


@dataclass(frozen=True)
class ClippedDensityCoverage:
    """Clipped density and coverage, each in [0, 1]; 1 is what rows of the reference's distribution score.

    Density: reference radii are cut at their median; each generated row counts min(c, k) / k, c the cut balls that hold
    it; the mean is divided by that of the reference rows against the balls of the others, and cut at 1.
    Coverage: each reference row counts min(c, k) / k, c the generated rows in its (whole) ball; the mean is the one
    expected when so many of the generated rows come from the reference's distribution and the rest lie nowhere near,
    and the share of those is reported. The paper uses k = 5. Its public code asks for strictly less in the coverage.
    Source: Salvy, Talbot and Thirion, arXiv 2507.01761.
    """

    density: Interval
    coverage: Interval


def clipped_radii(balls: Balls) -> FloatArray:
    """Squared radii [n], none above the square of the median radius."""
    ordered = np.sort(balls.squared_radii)
    low, high = ordered[(ordered.size - 1) // 2], ordered[ordered.size // 2]
    # Between the two middle ones, and exactly their value where they are equal.
    median = np.clip(((np.sqrt(low) + np.sqrt(high)) / 2) ** 2, low, high)
    return np.minimum(balls.squared_radii, median)


def clipped_density(generated: Held, reference: Held, neighbours: int, confidence: float = 0.95) -> Interval:
    """Clipped density from finished counts in the cut balls: of generated rows, and of reference rows in others' balls.

    The interval is Student's, with the variance between generated rows plus a jackknife over groups of the reference,
    which leaves its rows out of both counts. ``n`` is the number of generated rows.
    """
    held = np.minimum(generated.balls_of_row, neighbours).astype(np.float64)
    real = float(np.minimum(reference.balls_of_row, neighbours).mean())
    value = float(held.mean()) / real
    left_out = np.array(
        [
            np.minimum(generated.balls_of_row - generated.by_row[:, group], neighbours).mean()
            / np.minimum(reference.balls_of_row - reference.by_row[:, group], neighbours).mean()
            for group in range(generated.by_row.shape[1])
        ]
    )
    found = around(value, variance_of_mean(held) / real**2, left_out, held.size, confidence, (0.0, np.inf))
    return Interval(min(1.0, found.value), min(1.0, found.low), min(1.0, found.high), found.n)


def clipped_coverage(generated: Held, neighbours: int, confidence: float = 0.95) -> Interval:
    """Clipped coverage from the finished counts of generated rows in the whole balls of the reference.

    The interval is that of the mean before calibration, with the variance between reference rows plus a jackknife over
    groups of generated rows, its ends calibrated like the value. ``n`` is the number of reference rows.
    """
    rows, balls = len(generated.by_row), len(generated.by_ball)
    total = generated.rows_of_ball
    covered = np.minimum(total, neighbours) / neighbours
    left_out = np.array([np.minimum(total - part, neighbours).mean() / neighbours for part in generated.by_ball.T])
    found = around(float(covered.mean()), variance_of_mean(covered), left_out, balls, confidence, (0.0, 1.0))
    value, low, high = (equivalent_share(v, rows, balls, neighbours) for v in (found.value, found.low, found.high))
    return Interval(value, low, high, balls)


def expected_clipped_coverage(good: int, reference: int, neighbours: int) -> float:
    """Return the mean of min(c, k) / k expected of ``good`` rows of the reference's distribution alone, in [0, 1].

    With n ``reference`` rows, a ball that reaches to the k-th of n - 1 others has probability mass Beta(k, n - k), so c
    is beta-binomial, P(c = i) = C(good, i) B(k + i, n - k + good - i) / B(k, n - k), whatever the continuous
    distribution; and E min(c, k) = k - sum_{i<k} (k - i) P(c = i) needs k terms only.
    """
    k, n = count(neighbours, "neighbours", 1), count(reference, "reference", neighbours + 1)
    i = np.arange(min(k, count(good, "good") + 1), dtype=np.float64)
    choose = gammaln(good + 1.0) - gammaln(i + 1.0) - gammaln(good - i + 1.0)
    probability = np.exp(choose + betaln(k + i, n - k + good - i) - betaln(k, n - k))
    return float(1.0 - np.sum((k - i) * probability) / k)


def equivalent_share(covered: float, generated: int, reference: int, neighbours: int) -> float:
    """Return the share in [0, 1] of ``generated`` rows that, good, would be expected to give the mean ``covered``.

    The inverse of :func:`expected_clipped_coverage`, which rises with the number of good rows, linear between whole
    numbers of them; 1 where even all of them would be expected to give less.
    """
    low, high = 0, count(generated, "generated", 1)
    if covered >= expected_clipped_coverage(high, reference, neighbours):
        return 1.0
    while high - low > 1:
        middle = (low + high) // 2
        if expected_clipped_coverage(middle, reference, neighbours) <= covered:
            low = middle
        else:
            high = middle
    below, above = (expected_clipped_coverage(good, reference, neighbours) for good in (low, high))
    return (low + (covered - below) / (above - below)) / generated
