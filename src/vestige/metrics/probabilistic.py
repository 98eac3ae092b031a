"""Probabilistic precision and recall: how likely a row belongs to the support of the other set."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vestige.metrics.arrays import IndexArray
from vestige.metrics.balls import Balls
from vestige.metrics.interval import Interval
from vestige.metrics.jackknife import around, variance_of_mean
from vestige.metrics.tiles import Side, Tile

STRETCH = 1.2
"""Factor a of the paper."""


@dataclass(frozen=True)
class ProbabilisticPrecisionRecall:
    """P-precision (of generated rows in the reference's support) and P-recall (the reverse), each in [0, 1].

    A row x belongs to the support of rows y_1 .. y_n with probability 1 - prod_i min(1, |x - y_i| / R), R = 1.2 times
    the mean distance of the y_i to their k-th nearest other one; the paper uses k = 4. Both are means of that over
    rows. Unlike the other metrics of this pass they are sums of rounded numbers: they agree to about 1e-5 between
    shapes of tiles and numbers of threads.
    Source: Park and Kim 2023, arXiv 2309.01590.
    """

    precision: Interval
    recall: Interval


class Likely:
    """Probability of each row of one side to belong to the support of the other side's ``balls``."""

    def __init__(self, rows: Side, count: int, balls: Balls, ball_groups: IndexArray) -> None:
        self._side, self._other, self._groups = rows, Side(1 - rows), ball_groups
        self._square = float(STRETCH * balls.radii.mean()) ** 2
        # Logarithms of what the balls of each group leave of the probability not to belong.
        self._logs = np.zeros((count, int(ball_groups.max()) + 1))

    def add(self, tile: Tile) -> None:
        """Take the pairs of a tile into account."""
        rows, shares = tile.shares(self._side, self._square)
        places = tile.strip(self._side).places[rows]
        groups = self._groups[tile.strip(self._other).places]
        edges = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(groups)]
        for start, end in pairwise(edges):
            part = shares.narrow(int(self._other), start, end - start).prod(int(self._other))
            with np.errstate(divide="ignore"):  # the logarithm of a copy's distance is -infinity
                self._logs[places, groups[start]] += np.log(part.double().numpy()) / 2

    def share(self, confidence: float) -> Interval:
        """Mean probability of the rows, with the variance between rows and a jackknife over groups of balls."""
        total = self._logs.sum(axis=1)
        left_out = np.array([np.delete(self._logs, group, axis=1).sum(axis=1) for group in range(self._logs.shape[1])])
        scores = -np.expm1(total)
        return around(
            float(scores.mean()),
            variance_of_mean(scores),
            -np.expm1(left_out).mean(axis=1),
            scores.size,
            confidence,
            (0.0, 1.0),
        )
