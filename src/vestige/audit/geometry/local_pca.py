"""The dimension of a neighbourhood from its principal components."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import numpy as np
from scipy.special import ndtr

from vestige.audit.geometry.distances import in_parts
from vestige.audit.geometry.estimate import Curve, Dimension, Doubles, Integers
from vestige.audit.geometry.estimator import DataEstimator, Vectors, Work
from vestige.audit.geometry.neighbourhood import (
    check_neighbours,
    curve_over,
    offsets,
    prepared,
    read_neighbours,
    search,
)
from vestige.errors import InvalidInput

_LEAST = 3


class Rule(str, Enum):
    """How a dimension is taken from eigenvalues ``l_1 >= l_2 >= ...``."""

    THRESHOLD = "threshold"
    """How many exceed a share of the largest (Fukunaga and Olsen 1971)."""
    PARTICIPATION = "participation-ratio"
    """``(sum l)^2 / sum l^2``: not an integer; at most the dimension, and equal to it where all are equal."""
    GAP = "gap"
    """The i with the largest ``l_i / l_(i+1)``: from 1 to one less than the number of eigenvalues."""


@dataclass(frozen=True)
class LocalPCA(DataEstimator):
    """Dimension from the eigenvalues of the covariance of the k nearest distinct rows, about their own mean.

    Where k is below the number of features they come from the k x k Gram matrix, which has the same. Fewer than about
    twice d neighbours cannot show d dimensions.

    The standard errors are asymptotic: logarithms of eigenvalues vary by 2 / k (Anderson 1963, for normal
    neighbourhoods; an evenly filled one varies less). A count then has variance ``sum p (1 - p)``, p the probability
    that an eigenvalue lies above the threshold, the participation ratio that of the delta method. Of the gap it is the
    spread over positions, each weighed by the probability that its gap is no smaller than the largest.

    Parameters
    ----------
    neighbours : numbers k, at least 3 each.
    rule : how a dimension is taken from the eigenvalues.
    threshold : share of the largest eigenvalue that :attr:`Rule.THRESHOLD` asks for, in (0, 1).

    Source: Fukunaga and Olsen 1971, *An algorithm for finding intrinsic dimensionality of data*.
    """

    claim: ClassVar[str] = "dimension of data around a point, from the directions in which its neighbours vary"
    source: ClassVar[str] = "Fukunaga and Olsen 1971"

    neighbours: tuple[int, ...] = (25, 50, 100)
    rule: Rule = Rule.THRESHOLD
    threshold: float = 0.05

    def __post_init__(self) -> None:
        """Raise InvalidInput unless there are numbers of neighbours and a share."""
        check_neighbours(self.neighbours, _LEAST)
        if not 0 < self.threshold < 1:
            raise InvalidInput(
                f"threshold = {self.threshold}.",
                expected="a share of the largest eigenvalue.",
                remedy="choose a number between 0 and 1, such as 0.05.",
            )

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
        dimension, error = np.empty((2, len(points), len(numbers)))

        def measure(part: slice) -> None:
            near = offsets(points[part], rows, found.index[part])
            for place, values in enumerate(spectra(near, numbers)):
                dimension[part, place], error[part, place] = self.of(values, int(numbers[place]))

        side = min(most, d)
        in_parts(len(points), 8 * (3 * most * d + 4 * side**2), work.budget, measure)
        return curve_over(numbers, found, dimension, error, d)

    def read(self, curve: Curve) -> Dimension:
        """The largest neighbourhood that agrees with all smaller ones."""
        return read_neighbours(curve)

    def of(self, values: Doubles, k: int) -> tuple[Doubles, Doubles]:
        """Dimension and standard error [n] from descending eigenvalues [n, r] of k points each."""
        if self.rule is Rule.PARTICIPATION:
            return _participation(values, k)
        with np.errstate(divide="ignore"):
            logarithm = np.log(values)
        if self.rule is Rule.THRESHOLD:
            above = logarithm - logarithm[:, :1] - np.log(self.threshold)
            likely = ndtr(above[:, 1:] / np.sqrt(4 / k))
            return (above > 0).sum(1).astype(np.float64), np.sqrt((likely * (1 - likely)).sum(1))
        return _gap(logarithm, k)


def spectra(near: Doubles, numbers: Integers) -> list[Doubles]:
    """Descending eigenvalues [n, min(k, d)] of the covariance of the first k of the points [n, m, d], for each k.

    Those that are 0 but for rounding are 0.
    """
    n, _, d = near.shape
    found: list[Doubles] = []
    second, first, done = np.zeros((n, d, d)) if numbers[-1] >= d else None, np.zeros((n, d)), 0
    for k in numbers.tolist():
        if k < d or second is None:
            part = near[:, :k] - near[:, :k].mean(1, keepdims=True)
            matrix = part @ part.transpose(0, 2, 1)
        else:
            fresh = near[:, done:k]
            second += fresh.transpose(0, 2, 1) @ fresh
            first += fresh.sum(1)
            matrix = second - first[:, :, None] * (first / k)[:, None, :]
            done = k
        values = np.linalg.eigvalsh(matrix)[:, ::-1] / (k - 1)
        nothing = values[:, :1] * (max(k, d) * np.finfo(np.float64).eps)
        found.append(np.where(values > nothing, values, 0.0))
    return found


def _participation(values: Doubles, k: int) -> tuple[Doubles, Doubles]:
    share = values / values.sum(1, keepdims=True)
    squares = np.square(share).sum(1)
    ratio = 1 / squares
    slope = 2 * ratio[:, None] - 2 * share * np.square(ratio)[:, None]
    return ratio, np.sqrt((np.square(slope * share)).sum(1) * 2 / k)


def _gap(logarithm: Doubles, k: int) -> tuple[Doubles, Doubles]:
    """Of a largest gap that is infinite there is no doubt; of eigenvalues that are 0 there are no gaps."""
    upper, lower = logarithm[:, :-1], logarithm[:, 1:]
    gaps = np.where(np.isfinite(upper), np.where(np.isfinite(lower), upper, np.inf), -np.inf)
    np.subtract(gaps, lower, out=gaps, where=np.isfinite(gaps))
    place = np.argmax(gaps, axis=1)
    largest = np.take_along_axis(gaps, place[:, None], 1)
    behind = np.where(np.isfinite(largest), gaps, 0) - np.where(np.isfinite(largest), largest, 0)
    weight = np.where(np.isfinite(largest), ndtr(behind / np.sqrt(8 / k)), gaps == largest)
    away = np.square(np.arange(gaps.shape[1]) - place[:, None])
    return place + 1.0, np.sqrt((weight * away).sum(1) / weight.sum(1))
