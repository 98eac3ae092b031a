"""Variance that a shared set of balls adds to a mean over rows: a grouped jackknife over the set."""

from __future__ import annotations

import math

import numpy as np

from vestige.metrics.arrays import FloatArray, IndexArray, count, open_unit
from vestige.metrics.interval import Interval, t_quantile
from vestige.randomness import Stream, generator

GROUPS = 20
_DRAW = 3
"""Keeps the dealing of balls apart from other uses of the same seed."""


def dealt(rows: int, seed: int, groups: int = GROUPS) -> IndexArray:
    """Group [rows] of each row, dealt at random into min(groups, rows) groups of equal size, or one less."""
    order = generator(count(seed, "seed"), Stream.CONTROL, row=0, draw=_DRAW).permutation(rows)
    labels = np.empty(rows, dtype=np.int64)
    labels[order] = np.arange(rows) % min(count(groups, "groups", 2), rows)
    return labels


def one_group(rows: int) -> IndexArray:
    """All rows in one group, where no jackknife is wanted."""
    return np.zeros(rows, dtype=np.int64)


def around(
    value: float,
    by_rows: float,
    left_out: FloatArray,
    rows: int,
    confidence: float,
    within: tuple[float, float],
) -> Interval:
    """Return ``value`` with Student's interval, cut to ``within``; ``rows`` is its n.

    The variance is ``by_rows``, that of the mean over rows, plus (g-1)/g sum (v_i - mean v)^2 over the values v_i
    [g] that are found ``left_out`` each group of balls; degrees of freedom min(rows, g) - 1. Where a value cannot be
    had (NaN) the bounds are ``within``.
    """
    g = left_out.size
    variance = by_rows + (g - 1) / g * float(np.sum((left_out - left_out.mean()) ** 2))
    if min(rows, g) < 2 or not math.isfinite(variance):
        return Interval(value, *within, rows)
    half = t_quantile(min(rows, g) - 1, open_unit(confidence, "confidence")) * math.sqrt(variance)
    return Interval(value, max(within[0], value - half), min(within[1], value + half), rows)


def variance_of_mean(values: FloatArray) -> float:
    """Variance of the mean of independent ``values`` [n]; NaN where n < 2."""
    return float(values.var(ddof=1)) / values.size if values.size > 1 else math.nan
