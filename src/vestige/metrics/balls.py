"""A feature set as a union of balls, and the counting of which rows lie in which ball.

Every ball is closed, and its radius is the Euclidean distance from its centre to its k-th nearest neighbour in the same
set, the centre itself not counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vestige.errors import InvalidInput
from vestige.metrics.arrays import Features, FloatArray, IndexArray, count, features
from vestige.metrics.closest import Within, nearest_others
from vestige.metrics.tiles import Side, Tile, Tiles
from vestige.progress import Progress, Silent


@dataclass(frozen=True, eq=False)
class Balls:
    """``centres`` [n, d] in the precision in which they came, ``squared_radii`` [n], and ``neighbours`` k.

    ``nearest`` are the k nearest other centres of each. Build it once for the reference with :meth:`around` and compare
    many sets with it.
    """

    centres: Features
    squared_radii: FloatArray
    neighbours: int
    nearest: Within = field(repr=False)

    @staticmethod
    def around(
        rows: npt.ArrayLike, neighbours: int, *, name: str = "features", progress: Progress | None = None
    ) -> Balls:
        """Return the balls of ``rows`` [n, d], n > ``neighbours`` >= 1; ``name`` is theirs in messages.

        Raises EmptySet or InvalidInput.
        """
        neighbours = count(neighbours, "neighbours", 1)
        centres = features(rows, name, rows=neighbours + 1)
        nearest = nearest_others(centres, neighbours, progress or Silent(), f"radii of {name}")
        return Balls(centres, nearest.squared[:, -1], neighbours, nearest)

    @property
    def radii(self) -> FloatArray:
        """Distance [n] of every centre to its k-th nearest other one."""
        return np.sqrt(self.squared_radii)


def varied(rows: Features, name: str) -> Features:
    """Return ``rows`` [n, d]; InvalidInput if all are equal, so that no distance means anything."""
    if not (rows != rows[0]).any():
        raise InvalidInput(
            f"All {len(rows)} rows of {name} are equal.",
            expected="features that differ between images.",
            remedy="check the extractor, its weights and its preprocessing.",
        )
    return rows


class Held:
    """Which rows lie in which balls, counted while tiles stream by, by jackknife group of either.

    ``balls`` is the side of the tiles that has the balls, of ``squared_radii`` [balls]; the rows are on the other side.
    ``by_row`` [rows, groups of balls] and ``by_ball`` [balls, groups of rows] count the pairs, ``least`` [rows, groups
    of balls] is the smallest squared radius among the balls that hold the row (infinity if none does).
    """

    def __init__(self, balls: Side, squared_radii: FloatArray, ball_groups: IndexArray, row_groups: IndexArray) -> None:
        self._side, self._squared_radii = balls, squared_radii
        self._ball_groups, self._row_groups = ball_groups, row_groups
        wide, high = int(ball_groups.max()) + 1, int(row_groups.max()) + 1
        self.by_row = np.zeros((len(row_groups), wide), dtype=np.int32)
        self.by_ball = np.zeros((len(ball_groups), high), dtype=np.int32)
        self.least = np.full((len(row_groups), wide), np.inf)
        self._balls, self._rows = np.zeros(len(row_groups), np.int64), np.zeros(len(ball_groups), np.int64)

    def add(self, tile: Tile) -> None:
        """Take the pairs of a tile into account."""
        self._within(tile, self._side)

    def add_both_ways(self, tile: Tile) -> None:
        """The same for a tile of a set with itself, whose rows are balls as well."""
        self._within(tile, Side.FIRST)
        self._within(tile, Side.SECOND)

    def _within(self, tile: Tile, side: Side) -> None:
        self.take(*tile.within(side, self._squared_radii[tile.strip(side).places]))

    def take(self, balls: IndexArray, rows: IndexArray) -> None:
        """Row ``rows[p]`` lies in ball ``balls[p]``; no pair is told twice."""
        place = rows * self.by_row.shape[1] + self._ball_groups[balls]
        np.add.at(self.by_row.reshape(-1), place, 1)
        np.minimum.at(self.least.reshape(-1), place, self._squared_radii[balls])
        np.add.at(self.by_ball.reshape(-1), balls * self.by_ball.shape[1] + self._row_groups[rows], 1)
        np.add.at(self._balls, rows, balls)
        np.add.at(self._rows, balls, rows)

    @property
    def balls_of_row(self) -> IndexArray:
        """How many balls hold each row."""
        return self.by_row.sum(axis=1, dtype=np.int64)

    @property
    def rows_of_ball(self) -> IndexArray:
        """How many rows each ball holds."""
        return self.by_ball.sum(axis=1, dtype=np.int64)

    @property
    def alone_by_ball(self) -> IndexArray:
        """How many rows each ball is the only one to hold."""
        # The sum of one index is that index.
        return np.bincount(self._balls[self.balls_of_row == 1], minlength=len(self.by_ball))

    @property
    def alone_by_row(self) -> IndexArray:
        """How many balls hold each row and no other."""
        return np.bincount(self._rows[self.rows_of_ball == 1], minlength=len(self.by_row))


def among_themselves(balls: Balls, squared_radii: FloatArray, groups: IndexArray, progress: Progress) -> Held:
    """Which centres lie in the balls of others, of radii [n] no longer than the balls' own.

    A centre lies in the ball of another that counts it among its nearest, so no pass is needed, unless ties leave some
    of those out.
    """
    held = Held(Side.FIRST, squared_radii, groups, groups)
    if balls.nearest.tied:
        for tile in Tiles(balls.centres).watched(progress, "ties"):
            held.add_both_ways(tile)
        return held
    i, place = np.nonzero(balls.nearest.squared <= squared_radii[:, None])
    held.take(i, balls.nearest.index[i, place])
    return held
