"""Two models on the same rows: tests and intervals that use the pairing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from vestige.errors import InvalidInput
from vestige.metrics.arrays import FloatArray, count, open_unit, vector
from vestige.metrics.interval import Interval, clopper_pearson, t_quantile


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test, in (0, 1].

    ``only_first`` rows were hit by the first model alone, ``only_second`` by the second alone. Were both equally
    likely to hit each row, either would take such a row with probability one half; p is the binomial probability of
    a split at least as uneven. Rows that both or neither hit tell nothing; 1 if there are no others.
    Source: McNemar, Psychometrika 12 (1947). Raises InvalidInput for negative counts.
    """
    first, second = count(only_first, "only_first"), count(only_second, "only_second")
    trials = first + second
    return 1.0 if trials == 0 else min(1.0, 2.0 * float(bdtr(min(first, second), trials, 0.5)))


def discordance(only_first: int, only_second: int, confidence: float = 0.95) -> Interval:
    """Return ``only_first - only_second`` with the interval that McNemar's exact test inverts to.

    Given the d rows that one model alone hit, the first has a share of them whose Clopper-Pearson bounds are
    [a, b]; the difference is bounded by d (2a - 1) and d (2b - 1), so the interval holds 0 exactly when the test
    does not reject. ``n`` is d; without such a row the bounds are infinite.
    Raises InvalidInput for negative counts.
    """
    first, second = count(only_first, "only_first"), count(only_second, "only_second")
    trials = first + second
    if trials == 0:
        return Interval(0.0, -math.inf, math.inf, 0)
    share = clopper_pearson(first, trials, confidence)
    return Interval(float(first - second), trials * (2 * share.low - 1), trials * (2 * share.high - 1), trials)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for having been looked at together, in the given order, each at most 1.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [1.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        highest = max(highest, (len(p_values) - place) * p_values[i])
        adjusted[i] = min(1.0, highest)
    return adjusted


def _placements(scores: FloatArray, rivals: FloatArray) -> FloatArray:
    """Share of rivals below each score, ties one half."""
    ordered = np.sort(rivals)
    below = np.searchsorted(ordered, scores, side="left") + np.searchsorted(ordered, scores, side="right")
    return below / (2.0 * len(rivals))


def auc_difference(
    members: tuple[npt.ArrayLike, npt.ArrayLike],
    non_members: tuple[npt.ArrayLike, npt.ArrayLike],
    confidence: float = 0.95,
) -> Interval:
    """Return the AUC of the first scores less that of the second on the same rows, in [-1, 1], with its interval.

    ``members`` holds two arrays [m] of scores of the same members, ``non_members`` two [n]. With placements v of
    members and w of non-members, the variance is var(v1 - v2)/m + var(w1 - w2)/n (DeLong, DeLong and
    Clarke-Pearson, Biometrics 44, 1988), the quantile Student's with Welch's degrees of freedom. Where the two put
    all rows in one order the interval is the point itself, as it should be; where both separate the sides
    completely as well, and there it says nothing.
    Raises EmptySet, or InvalidInput if the rows are not paired or fewer than two on a side.
    """
    inside = [vector(part, "member scores") for part in members]
    outside = [vector(part, "non-member scores") for part in non_members]
    m, n, level = inside[0].size, outside[0].size, open_unit(confidence, "confidence")
    if inside[1].size != m or outside[1].size != n or min(m, n) < 2:
        raise InvalidInput(
            f"There are {m} and {inside[1].size} member scores, {n} and {outside[1].size} of non-members.",
            expected="the same rows for both, at least two on a side.",
            remedy="score the same images with both models.",
        )
    above = _placements(inside[0], outside[0]) - _placements(inside[1], outside[1])
    below = _placements(outside[0], inside[0]) - _placements(outside[1], inside[1])
    value = float(above.mean())
    parts = float(above.var(ddof=1)) / m, float(below.var(ddof=1)) / n
    variance = sum(parts)
    if variance == 0.0:
        return Interval(value, value, value, m + n)
    degrees = variance**2 / (parts[0] ** 2 / (m - 1) + parts[1] ** 2 / (n - 1))
    half = t_quantile(degrees, level) * math.sqrt(variance)
    return Interval(value, max(-1.0, value - half), min(1.0, value + half), m + n)
