"""A straight line through points of which some do not belong: the median of the slopes of all pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

NORMAL_SPREAD = 1.482602218505602
"""Standard deviation of a normal variable over its median absolute deviation."""

_MOST = 1000


@dataclass(frozen=True)
class Line:
    """``y = intercept + slope x``; ``spread`` is the robust standard deviation of the n residuals around it."""

    intercept: float
    slope: float
    spread: float
    n: int

    def at(self, x: Doubles) -> Doubles:
        """The line at x [n]."""
        return self.intercept + self.slope * x


def robust_line(x: Doubles, y: Doubles) -> Line:
    """Theil-Sen line through (x, y), each [n]; pairs with a NaN are passed over.

    The slope is the median over pairs with unequal x, 0 where there is none; the intercept the median of
    ``y - slope x``; the spread 1.4826 times the median absolute residual. Nearly a third of the points may be anything
    before the line breaks down. Of more than 1,000 points every k-th in order of x decides the slope. Without a point
    everything is NaN. Source: Sen, JASA 63 (1968).
    """
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known].astype(np.float64), y[known].astype(np.float64)
    if x.size == 0:
        return Line(np.nan, np.nan, np.nan, 0)
    order = np.argsort(x, kind="stable")
    some = order[np.unique(np.linspace(0, x.size - 1, min(x.size, _MOST)).round().astype(np.int64))]
    first, second = np.triu_indices(some.size, 1)
    across = x[some][second] - x[some][first]
    rise = y[some][second] - y[some][first]
    apart = across > 0
    slope = float(np.median(rise[apart] / across[apart])) if apart.any() else 0.0
    intercept = float(np.median(y - slope * x))
    spread = NORMAL_SPREAD * float(np.median(np.abs(y - intercept - slope * x)))
    return Line(intercept, slope, spread, int(x.size))
