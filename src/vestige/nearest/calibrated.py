"""The adaptive distance of Carlini et al.: how near a query lies to a row, next to how near it lies to others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.errors import InvalidInput
from vestige.nearest.exact import BUDGET, Bytes, check
from vestige.nearest.reduce import Integers, rms, topk

_ENTRY = 128  # bytes a neighbour costs while clusters are told apart, half of it inside the search for neighbours


@dataclass(frozen=True, eq=False)
class Calibrated:
    """The nearest row of each query and its calibrated distance.

    ``index`` int64 [q] and ``distance`` float64 [q] (root mean square, pixels in [0, 1]) are the nearest row; ``ratio``
    float64 [q] is the adaptive distance, at most 1 for a copy, and nan where it is not defined: S is empty, or all of
    S is at distance zero. ``used`` is the size of S, the same for every query.
    """

    index: Integers
    distance: npt.NDArray[np.float64]
    ratio: npt.NDArray[np.float64]
    used: int


def calibrated(
    queries: Bytes,
    rows: Bytes,
    labels: npt.NDArray[np.integer] | None = None,
    *,
    neighbours: int = 50,
    alpha: float = 0.5,
    include_nearest: bool = True,
    budget: int = BUDGET,
    device: str = "cpu",
) -> Calibrated:
    """Adaptive distance ``l(q, x) / (alpha * mean_{y in S} l(q, y))`` of uint8 queries [q, d] and rows [m, d].

    l is the root-mean-square distance, x the nearest row of q, and S the nearest representatives of the ``neighbours``
    nearest clusters, one a cluster; of fewer clusters S takes all. ``labels`` [m] names the cluster of each row;
    without it every row is its own cluster, which is the published form. There, m duplicates of x in S pull the mean
    towards ``l(q, x)`` and the ratio towards ``1 / alpha``: the more a row was duplicated, the better its copies hide.
    Clusters prevent that.

    Parameters
    ----------
    alpha : positive; 0.5 and 50 neighbours are the published values.
    include_nearest : S holds x, as published; False leaves out x and its cluster.

    Raises
    ------
    InvalidInput : labels that do not match the rows, fewer than one neighbour, alpha not positive.

    Source: Carlini et al. 2023, arXiv 2301.13188, the study of CIFAR-10.
    """
    check(queries, rows)
    clusters = np.arange(len(rows)) if labels is None else np.unique(labels, return_inverse=True)[1]
    if clusters.shape != (len(rows),) or neighbours < 1 or not alpha > 0:
        raise InvalidInput(
            f"labels of shape {clusters.shape}, neighbours = {neighbours}, alpha = {alpha}.",
            expected=f"labels of shape ({len(rows)},), neighbours of at least 1, alpha above 0.",
            remedy="label the rows with clusters(rows, radius) and keep the published values of the rest.",
        )
    skipped = 0 if include_nearest else 1
    wanted = min(neighbours + skipped, int(clusters.max()) + 1)
    begin = wanted if labels is None else 2 * wanted
    index, distance2 = _nearest_clusters(queries, rows, clusters, wanted, begin, budget, device)
    distance = rms(distance2, rows.shape[1])
    used = wanted - skipped
    mean = distance[:, skipped:].mean(1) if used else np.zeros(len(queries))
    ratio = np.divide(distance[:, 0], alpha * mean, out=np.full(len(queries), np.nan), where=mean > 0)
    return Calibrated(index, distance[:, 0].copy(), ratio, used)


def _nearest_clusters(
    queries: Bytes,
    rows: Bytes,
    clusters: npt.NDArray[np.integer],
    wanted: int,
    begin: int,
    budget: int,
    device: str,
) -> tuple[Integers, Integers]:
    """Nearest row [q] and squared distances [q, wanted] to the nearest clusters, ascending.

    The first members of their clusters among the k nearest rows are exact; k begins at ``begin`` and grows for the
    queries that need more.
    """
    index = np.empty(len(queries), np.int64)
    distance2 = np.empty((len(queries), wanted), np.int64)
    pending, k = np.arange(len(queries)), min(begin, len(rows))
    while len(pending):
        short = np.zeros(len(pending), bool)
        step = max(1, budget // (_ENTRY * k))
        for start in range(0, len(pending), step):
            batch = pending[start : start + step]
            found = topk(queries[batch], rows, k, budget=budget // 2, device=device)
            first = _first_of_each(clusters[found.index])
            enough = first.sum(1) >= wanted
            first &= (first.cumsum(1) <= wanted) & enough[:, None]
            index[batch] = found.index[:, 0]
            distance2[batch[enough]] = found.distance2[first].reshape(-1, wanted)
            short[start : start + step] = ~enough
        pending, k = pending[short], min(4 * k, len(rows))
    return index, distance2


def _first_of_each(values: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Mark in each row of [q, k] the first occurrence of every value."""
    order = values.argsort(axis=1, kind="stable")
    ordered = np.take_along_axis(values, order, axis=1)
    new = np.ones(values.shape, bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.empty_like(new)
    np.put_along_axis(first, order, new, axis=1)
    return first
