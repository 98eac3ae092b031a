"""The dimension of two nearest neighbours, of a whole set or of a neighbourhood."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import numpy as np

from vestige.audit.geometry.estimate import Curve, Dimension, Doubles, Integers
from vestige.audit.geometry.estimator import DataEstimator, Vectors, Work
from vestige.audit.geometry.neighbourhood import (
    Neighbours,
    Reference,
    check_neighbours,
    curve_over,
    prepared,
    read_neighbours,
    search,
)
from vestige.errors import InvalidInput

_LEAST = 5


class Fit(str, Enum):
    """How a dimension is fitted to ratios."""

    LIKELIHOOD = "likelihood"
    """Maximum likelihood without its bias; the ratios discarded count as censored."""
    LINEAR = "linear"
    """The published line through the origin of ``-log(1 - F)`` against ``log mu``."""


@dataclass(frozen=True)
class TwoNN(DataEstimator):
    """Dimension from the ratios ``mu = r_2 / r_1`` of the distances of a row to its two nearest distinct rows.

    ``log mu`` is exponential with rate d whatever the density, if that is even out to ``r_2``. At a query the ratios
    of its k nearest distinct rows are used, each measured in the whole reference. Of k ratios the
    ``m = floor(k (1 - discard))`` smallest are kept. Likelihood (Denti et al. 2022, censored beyond the m-th):

        d = (m - 1) / (sum_{i <= m} log mu_(i) + (k - m) log mu_(m)),   standard error d / sqrt(m - 2)

    Line (Facco et al. 2017): ``d = sum x_i y_i / sum x_i^2``, ``x_i = log mu_(i)``, ``y_i = -log(1 - i / k)``, whose
    standard error follows from that of exponential order statistics. Both errors are asymptotic and take ratios as
    independent; those of mutual neighbours are not, which makes the errors too small by about a fifth.

    Parameters
    ----------
    neighbours : numbers k of ratios, at least 5 each.
    discard : share of largest ratios that are not fitted, 0 to 0.5.
    fit : which of the two.

    Source: Facco et al. 2017, *Estimating the intrinsic dimension of datasets by a minimal neighborhood information*,
    arXiv 1803.06992; Denti et al. 2022, arXiv 2104.13832.
    """

    claim: ClassVar[str] = (
        "dimension of data around a point, from how much farther second neighbours are than first ones"
    )
    source: ClassVar[str] = "Facco et al. 2017, arXiv 1803.06992"

    neighbours: tuple[int, ...] = (20, 40, 80, 160)
    discard: float = 0.1
    fit: Fit = Fit.LIKELIHOOD

    def __post_init__(self) -> None:
        """Raise InvalidInput unless ratios are left to fit."""
        check_neighbours(self.neighbours, _LEAST)
        if not 0 <= self.discard <= 0.5:
            raise InvalidInput(f"discard = {self.discard}.", expected="0 to 0.5.", remedy="keep more of the ratios.")

    def curve(self, queries: Vectors, reference: Vectors, *, same_index: bool = False, work: Work) -> Curve:
        """Estimates at queries [q, d] over numbers of ratios; 0 on atoms.

        With ``same_index`` the row of the query is left out of the ratios of its neighbours, too.

        Raises
        ------
        InvalidInput, ShapeMismatch, EmptySet : as for :func:`~vestige.audit.geometry.neighbourhood.prepared`.
        """
        numbers = np.unique(self.neighbours)
        points, rows = prepared(queries, reference, same_index=same_index)
        found = search(points, rows, int(numbers[-1]), same_index=same_index, budget=work.budget)
        own = rows.place[: len(points)] if same_index else np.full(len(points), -1)
        ratios = _ratios_without(_two_nearest(rows, work.budget), found, own)
        dimension, error = np.empty((2, len(points), len(numbers)))
        for place, k in enumerate(numbers.tolist()):
            dimension[:, place], error[:, place] = self._fitted(ratios[:, :k])
        return curve_over(numbers, found, dimension, error, points.shape[1])

    def read(self, curve: Curve) -> Dimension:
        """The largest neighbourhood that agrees with all smaller ones."""
        return read_neighbours(curve)

    def overall(self, reference: Vectors, *, work: Work) -> tuple[float, float]:
        """One dimension of all distinct rows, and its standard error; NaN of fewer than 5 rows.

        Raises
        ------
        InvalidInput, EmptySet : as for :meth:`curve`.
        """
        rows = prepared(reference[:0], reference, same_index=False)[1]
        if len(rows.rows) < _LEAST:
            return float("nan"), float("nan")
        distance = _two_nearest(rows, work.budget).distance
        value, error = self._fitted(np.log(distance[None, :, 1] / distance[None, :, 0]))
        return float(value[0]), float(error[0])

    def _fitted(self, ratios: Doubles) -> tuple[Doubles, Doubles]:
        """Dimension and standard error [q] of log ratios [q, k], NaN where a ratio is or all are 1."""
        k = ratios.shape[1]
        kept = int(k * (1 - self.discard))
        if self.fit is Fit.LINEAR:
            kept = min(kept, k - 1)  # of the k-th, -log(1 - F) is infinite
        x = np.sort(ratios, axis=1)[:, :kept]
        x = np.where(np.isnan(ratios).any(axis=1, keepdims=True), np.nan, x)
        if self.fit is Fit.LIKELIHOOD:
            total, top = x.sum(1) + (k - kept) * x[:, -1], float(kept - 1)
            relative = 1 / np.sqrt(kept - 2) if kept > 2 else np.nan
        else:
            rank = np.arange(1, kept + 1)
            y = -np.log(1 - rank / k)
            total, top = np.square(x).sum(1), x @ y
            ahead = np.cumsum(y[::-1])[::-1] / (k - rank + 1)
            relative = np.sqrt(np.square(ahead).sum()) / np.square(y).sum()
        dimension = np.divide(top, total, out=np.full(total.shape, np.nan), where=total > 0)
        return dimension, dimension * relative


def _two_nearest(rows: Reference, budget: int) -> Neighbours:
    """The three nearest of each distinct row among the others; the third stands in where one is left out."""
    u = len(rows.rows)
    alone = Reference(rows.rows, np.ones(u, np.int64), np.arange(u))
    return search(rows.rows, alone, 3, same_index=True, budget=budget)


def _ratios_without(near: Neighbours, found: Neighbours, own: Integers) -> Doubles:
    """Log ratios [q, k] of the neighbours of each query, without the row ``own`` [q]; NaN where there is none."""
    distance, index = near.distance[found.index], near.index[found.index]
    first, second = (index[..., place] == own[:, None] for place in (0, 1))
    outer = np.where(first | second, distance[..., 2], distance[..., 1])
    inner = np.where(first, distance[..., 1], distance[..., 0])
    missing = (found.index < 0) | ~np.isfinite(outer)
    return np.log(np.where(missing, np.nan, outer)) - np.log(np.where(missing, np.nan, inner))
