"""The maximum-likelihood dimension of Levina and Bickel, without its bias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.audit.geometry.estimate import Curve, Dimension, Doubles
from vestige.audit.geometry.estimator import DataEstimator, Vectors, Work
from vestige.audit.geometry.neighbourhood import check_neighbours, curve_over, prepared, read_neighbours, search

_LEAST = 4  # neighbours from which both the estimate and its variance exist


@dataclass(frozen=True)
class MLE(DataEstimator):
    """Dimension from the distances ``R_1 <= ... <= R_k`` to the k nearest distinct rows.

    Around a point of density that is even within ``R_k`` on a flat piece of dimension d, the ``ln(R_k / R_j)`` are
    exponential with rate d, so ``S_k = sum_j ln(R_k / R_j)`` is gamma distributed with shape k - 1, and

        d_k = (k - 2) / S_k

    has mean d and variance ``d^2 / (k - 3)``; the published form, ``(k - 1) / S_k``, is too large by a factor of
    ``(k - 1) / (k - 2)``. The standard error is asymptotic, ``d_k / sqrt(k - 3)``.

    Parameters
    ----------
    neighbours : numbers k, at least 4 each. One sorted search serves all.

    Source: Levina and Bickel 2004, *Maximum likelihood estimation of intrinsic dimension*, equation 8, and their
    remark on its bias; MacKay and Ghahramani 2005 for :func:`overall`.
    """

    claim: ClassVar[str] = "dimension of data around a point, from how fast the distances to its neighbours grow"
    source: ClassVar[str] = "Levina and Bickel 2004"

    neighbours: tuple[int, ...] = (10, 20, 40, 80)

    def __post_init__(self) -> None:
        """Raise InvalidInput unless there are numbers of neighbours from which a variance exists."""
        check_neighbours(self.neighbours, _LEAST)

    def curve(self, queries: Vectors, reference: Vectors, *, same_index: bool = False, work: Work) -> Curve:
        """Estimates at queries [q, d] over numbers of neighbours; 0 on atoms, NaN where all neighbours are equally far.

        Raises
        ------
        InvalidInput, ShapeMismatch, EmptySet : as for :func:`~vestige.audit.geometry.neighbourhood.prepared`.
        """
        numbers = np.unique(self.neighbours)
        points, rows = prepared(queries, reference, same_index=same_index)
        found = search(points, rows, int(numbers[-1]), same_index=same_index, budget=work.budget)
        logarithm = np.log(np.where(np.isfinite(found.distance), found.distance, np.nan))
        sums = np.cumsum(logarithm, axis=1)[:, numbers - 1]
        spread = numbers * logarithm[:, numbers - 1] - sums
        rounding = 1e-14 * numbers * np.abs(logarithm[:, numbers - 1])
        dimension = np.divide(numbers - 2, spread, out=np.full(spread.shape, np.nan), where=spread > rounding)
        return curve_over(numbers, found, dimension, dimension / np.sqrt(numbers - 3), points.shape[1])

    def read(self, curve: Curve) -> Dimension:
        """The largest neighbourhood that agrees with all smaller ones."""
        return read_neighbours(curve)


def overall(curve: Curve) -> tuple[Doubles, Doubles]:
    """One dimension of all points at each level [levels], and its standard error as if points were independent.

    The likelihoods multiply, so the inverses average: ``(k - 1) / mean(S_k)`` (MacKay and Ghahramani 2005). Atoms and
    points without an answer are left out; NaN where none is left.
    """
    given = np.isfinite(curve.dimension) & (curve.dimension > 0)
    spread = np.divide(curve.scale - 2, curve.dimension, out=np.zeros(curve.dimension.shape), where=given)
    total, n = spread.sum(0), given.sum(0)
    value = np.divide(n * (curve.scale - 1), total, out=np.full(total.shape, np.nan), where=n > 0)
    return value, value / np.sqrt(np.maximum(n, 1) * (curve.scale - 1))
