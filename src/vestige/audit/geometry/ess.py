"""The expected simplex skewness of a neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.audit.geometry.distances import in_parts
from vestige.audit.geometry.estimate import Curve, Dimension, Doubles
from vestige.audit.geometry.estimator import DataEstimator, Vectors, Work
from vestige.audit.geometry.neighbourhood import (
    check_neighbours,
    curve_over,
    offsets,
    prepared,
    read_neighbours,
    search,
)

_LEAST = 4
_MOST = 1 << 16  # the largest dimension that is told apart


@dataclass(frozen=True)
class ESS(DataEstimator):
    """Dimension from how far from parallel the neighbours of a point are.

    With ``v_i`` the k nearest distinct rows, as seen from their mean, and all pairs i < j,

        ess = sum |v_i ^ v_j| / sum |v_i| |v_j|,   |v ^ w|^2 = |v|^2 |w|^2 - (v w)^2

    is the mean sine of the angle, weighted by lengths. For directions that are uniform in n dimensions it is
    ``Gamma(n/2)^2 / (Gamma((n+1)/2) Gamma((n-1)/2))``, 0 for n = 1 and rising to 1; between integers the dimension is
    interpolated linearly.

    The standard error is the jackknife over neighbours with their mean held fixed, less the variance of the pairs among
    themselves, which the jackknife counts twice; it is no smaller than that variance, and equal to it where directions
    are uniform, for then the pairs of one neighbour are as good as independent.

    Parameters
    ----------
    neighbours : numbers k, at least 4 each.

    Source: Johnsson, Soneson and Fontes 2015, *Low bias local intrinsic dimension estimation from expected simplex
    skewness*, version a with d = 1.
    """

    claim: ClassVar[str] = "dimension of data around a point, from the angles between its neighbours"
    source: ClassVar[str] = "Johnsson et al. 2015, doi 10.1109/TPAMI.2014.2343220"

    neighbours: tuple[int, ...] = (25, 50, 100)

    def __post_init__(self) -> None:
        """Raise InvalidInput unless there are numbers of neighbours, enough for pairs."""
        check_neighbours(self.neighbours, _LEAST)

    def curve(self, queries: Vectors, reference: Vectors, *, same_index: bool = False, work: Work) -> Curve:
        """Estimates at queries [q, d] over numbers of neighbours; 0 on atoms.

        Raises
        ------
        InvalidInput, ShapeMismatch, EmptySet : as for :func:`~vestige.audit.geometry.neighbourhood.prepared`.
        """
        numbers = np.unique(self.neighbours)
        points, rows = prepared(queries, reference, same_index=same_index)
        most, d = int(numbers[-1]), points.shape[1]
        found = search(points, rows, most, same_index=same_index, budget=work.budget)
        value, error = np.empty((2, len(points), len(numbers)))

        def measure(part: slice) -> None:
            near = offsets(points[part], rows, found.index[part])
            for place, k in enumerate(numbers.tolist()):
                value[part, place], error[part, place] = skewness(near[:, :k])

        in_parts(len(points), 8 * (3 * most * d + 4 * most**2), work.budget, measure)
        dimension, slope = dimension_of(value)
        return curve_over(numbers, found, dimension, error * slope, d)

    def read(self, curve: Curve) -> Dimension:
        """The largest neighbourhood that agrees with all smaller ones."""
        return read_neighbours(curve)


def skewness(near: Doubles) -> tuple[Doubles, Doubles]:
    """Expected simplex skewness [n] of points [n, k, d], in [0, 1], and its standard error."""
    k = near.shape[1]
    centred = near - near.mean(1, keepdims=True)
    area = centred @ centred.transpose(0, 2, 1)
    norm2 = np.diagonal(area, axis1=1, axis2=2).copy()
    length = np.sqrt(norm2)
    np.square(area, out=area)
    np.subtract(norm2[:, :, None] * norm2[:, None, :], area, out=area)
    np.maximum(area, 0, out=area)
    area[:, np.arange(k), np.arange(k)] = 0
    area2 = area.sum((1, 2))
    np.sqrt(area, out=area)
    sine, weight = area.sum(2), length * (length.sum(1, keepdims=True) - length)  # of each with all others
    sines, weights = sine.sum(1), weight.sum(1)
    whole = sines / weights
    # Without i both sums lose its pairs, which stand in them twice.
    without = (sines[:, None] - 2 * sine) / (weights[:, None] - 2 * weight)
    jackknife = np.square(without - without.mean(1, keepdims=True)).sum(1) * (k - 1) / k
    both = ((area @ length[:, :, None])[:, :, 0] * length).sum(1)
    weight2 = np.square(norm2.sum(1)) - np.square(norm2).sum(1)
    pairs = 2 * np.maximum(area2 - 2 * whole * both + whole**2 * weight2, 0) / weights**2
    return whole, np.sqrt(np.maximum(jackknife - pairs, pairs))


def expected(most: int) -> Doubles:
    """Expected skewness of directions that are uniform in 1, 2, ..., ``most`` dimensions.

    From n to n + 2 the quotient of gamma functions grows by ``n^2 / (n^2 - 1)``, which keeps digits that logarithms of
    large gamma functions lose.
    """
    table = np.zeros(most + 1)
    for first, value in ((2, 2 / np.pi), (3, np.pi / 4)):
        before = np.arange(first, most - 1, 2, dtype=np.float64)
        table[first::2] = value * np.cumprod(np.concatenate(([1.0], 1 / (1 - before**-2))))[: len(table[first::2])]
    return table[1:]


def dimension_of(value: Doubles) -> tuple[Doubles, Doubles]:
    """The dimension whose expected skewness a value is, interpolated between integers, and its slope there."""
    # The expected value is 1 - 1 / 2n to first order, from below.
    largest = float(np.nanmax(value, initial=0.0))
    most = int(min(_MOST, 8 + 1 / max(1 - largest, 1 / _MOST)))
    table = expected(most)
    lower = np.clip(np.searchsorted(table, np.nan_to_num(value), side="right"), 1, most - 1)
    slope = 1 / (table[lower] - table[lower - 1])
    return lower + (value - table[lower - 1]) * slope, slope
