"""The nearest rows of every row, exactly, while tiles of distances stream by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vestige.metrics.arrays import Features, FloatArray, IndexArray
from vestige.metrics.tiles import Side, Tile, Tiles
from vestige.progress import Progress

_NONE = np.iinfo(np.int64).max


class Closest:
    """Keeps the k nearest of the rows of one side: ``squared`` and ``index`` [n, k], nearest first, lower index first.

    Rows that found fewer than k hold infinity and the largest integer at the end.
    """

    def __init__(self, count: int, k: int) -> None:
        self.squared = np.full((count, k), np.inf)
        self.index = np.full((count, k), _NONE)
        self._left_out = np.full(count, -1.0)

    def add(self, tile: Tile, side: Side) -> None:
        """Take the pairs of a tile into account."""
        places = tile.strip(side).places
        self._merge(*tile.nearest(side, self.squared[places, -1], self.squared.shape[1]))

    def _merge(self, rows: IndexArray, index: IndexArray, squared: FloatArray) -> None:
        k = self.squared.shape[1]
        met = np.unique(rows)
        every = np.concatenate([rows, np.repeat(met, k)])
        distances = np.concatenate([squared, self.squared[met].ravel()])
        names = np.concatenate([index, self.index[met].ravel()])
        order = np.lexsort((names, distances, every))
        every, distances, names = every[order], distances[order], names[order]
        rank = np.arange(len(every)) - np.searchsorted(every, every)
        kept = rank < k
        self.squared[met] = distances[kept].reshape(-1, k)
        self.index[met] = names[kept].reshape(-1, k)
        tie = (rank == k) & (distances == self.squared[every, -1])
        self._left_out[every[tie]] = distances[tie]

    @property
    def tied(self) -> bool:
        """Whether a row that was left out is as near as the k-th of some row."""
        return bool((self._left_out == self.squared[:, -1]).any())


@dataclass(frozen=True, eq=False)
class Within:
    """The k nearest other rows of every row of a set: ``squared`` distances and ``index`` [n, k].

    ``tied``: some row has more rows within its k-th distance than the k that are listed.
    """

    squared: FloatArray
    index: IndexArray
    tied: bool


def nearest_others(rows: Features, k: int, progress: Progress, label: str) -> Within:
    """The k nearest other rows of each of ``rows`` [n, d], n > k >= 1."""
    found = Closest(len(rows), k)
    for tile in Tiles(rows).watched(progress, label):
        found.add(tile, Side.FIRST)
        found.add(tile, Side.SECOND)
    return Within(found.squared, found.index, found.tied)


def nearest_to(queries: Features, rows: Features, k: int, progress: Progress, label: str) -> Within:
    """The k nearest of ``rows`` [n, d], n >= k, of each of ``queries`` [m, d]."""
    found = Closest(len(queries), k)
    for tile in Tiles(queries, rows).watched(progress, label):
        found.add(tile, Side.FIRST)
    return Within(found.squared, found.index, found.tied)
