"""Clusters of near duplicates: connected components of the graph that joins rows within a radius."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vestige.nearest.exact import BUDGET, Bytes
from vestige.nearest.reduce import Integers, hits


def clusters(rows: Bytes, radius: float, *, budget: int = BUDGET, device: str = "cpu") -> Integers:
    """Label [m] of each uint8 row [m, d]: the smallest row index in its cluster.

    Two rows share a cluster iff a chain of rows joins them with every step within ``radius`` (root mean square, pixels
    in [0, 1]). Pairs are merged tile by tile and never kept.
    """
    parent = np.arange(len(rows), dtype=np.int64)
    for pairs in hits(rows, rows, radius, upper=True, budget=budget, device=device):
        _merge(parent, pairs)
    return parent


def components(pairs: Integers, n: int) -> Integers:
    """Label [n] of each node: the smallest node in its connected component under the edges ``pairs`` [p, 2]."""
    parent = np.arange(n, dtype=np.int64)
    _merge(parent, pairs)
    return parent


def cluster_sizes(labels: npt.NDArray[np.integer]) -> Integers:
    """How many rows share the label of each row, int64 [m]."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return counts[inverse]


def _merge(parent: Integers, pairs: Integers) -> None:
    """Union-find on whole arrays. ``parent`` maps every node to its root, before and after."""
    while True:
        roots = np.sort(parent[pairs], axis=1)
        roots = roots[roots[:, 0] != roots[:, 1]]
        if not len(roots):
            return
        parent[roots[:, 1]] = roots[:, 0]  # downwards only, so the smallest node of a component stays its root
        while not np.array_equal(parent, above := parent[parent]):
            parent[:] = above
