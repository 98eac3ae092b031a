"""Distances between two sets of feature rows, one tile at a time, and every comparison with them exact.

A tile is estimated by ``|x|^2 + |y|^2 - 2 x.y`` in one float32 product of rows from which a common centre was taken.
Each estimate is off by at most ``error(x) + error(y)``; where that leaves a comparison open it is decided by the
float64 differences of the rows as they were given, so results are those of brute force, ties and near-duplicates
included, for any tiles and any number of threads. Where float32 leaves too much open, a tile is estimated in float64.
The smallest estimates of short segments say where to look, and nothing that grows with the number of pairs is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

from vestige.metrics.arrays import Features, FloatArray, IndexArray, blocks
from vestige.nearest.exact import full_precision
from vestige.progress import Progress

_HEIGHT, _WIDTH = 1024, 2048
_HELD = 8
"""Strips of the first set that are kept ready while those of the second pass by."""

_SEGMENT = 128
"""Estimates of a segment. Strips are padded to a multiple of it by rows that are infinitely far away."""

_GATHERED = 1 << 17
"""Numbers of a gathered block of rows; more leave the cache."""

_OPEN = 8
"""Pairs a row of a tile to be taken from differences, above which float64 estimates are cheaper."""

_LONGEST = 1e37
"""Squared lengths above this overflow in float32."""

_ROUNDING = 1e-4
"""Rounding relative to the squared radius above which estimates do not serve for products of distances."""

_CLOSE = 100
"""Times the rounding below which squared distances are always taken anew for such products."""

Pairs = tuple[IndexArray, IndexArray]


class Side(IntEnum):
    """The first or the second set of a tile."""

    FIRST = 0
    SECOND = 1


def squared_distances(first: Features, i: IndexArray, second: Features, j: IndexArray) -> FloatArray:
    """Squared distance [p] of every pair (first[i], second[j]) from float64 differences."""
    squared = np.empty(i.size)
    for part in blocks(i.size, max(1, _GATHERED // first.shape[1])):
        gap = first[i[part]].astype(np.float64)
        gap -= second[j[part]]
        squared[part] = np.sum(np.square(gap, out=gap), axis=1)
    return squared


class Strip:
    """Some rows of one set: their ``places`` in it, ``values`` as given, squared lengths ``norm2`` from the centre."""

    def __init__(self, values: Features, places: IndexArray, side: Side, centre: FloatArray) -> None:
        consecutive = len(places) == places[-1] - places[0] + 1 and bool((np.diff(places) == 1).all())
        self.places, self._side, self._centre = places, side, centre
        self.values = values[places[0] : places[-1] + 1] if consecutive else values[places]
        wide = self._wide_factor()
        self.norm2 = wide[: len(places), self._norm].copy()
        with np.errstate(over="ignore"):
            self._single = torch.from_numpy(wide.astype(np.float32))

    def __len__(self) -> int:
        return len(self.places)

    @property
    def _norm(self) -> int:
        """The column of the factor that holds squared lengths."""
        return -2 if self._side is Side.FIRST else -1

    def _wide_factor(self) -> FloatArray:
        rows, d = self.values.shape
        factor = np.zeros((-(-rows // _SEGMENT) * _SEGMENT, d + 2))
        centred = np.subtract(self.values, self._centre, out=factor[:rows, :d])
        factor[:, -2:] = 1.0
        factor[:, self._norm] = np.inf
        factor[:rows, self._norm] = np.einsum("nd,nd->n", centred, centred)
        if self._side is Side.FIRST:
            centred *= -2.0
        return factor

    def factor(self, wide: bool) -> Tensor:
        """Rows [padded n, d + 2] whose product with those of the other side are the estimates of squared distances.

        (-2 x, |x|^2, 1) for the first side, (y, 1, |y|^2) for the second; float64 if ``wide``, else float32.
        """
        return torch.from_numpy(self._wide_factor()) if wide else self._single

    def error(self, wide: bool) -> FloatArray:
        """The part [n] of these rows in the error of an estimate.

        A product of d + 2 terms in any order is off by at most gamma(d + 2) times the sum of their magnitudes, gamma(d)
        = d u / (1 - d u) (Higham, Accuracy and Stability, ch. 3), which is at most 2 (|x|^2 + |y|^2). Rounding of the
        factors and of comparisons adds less than 16 u of |x|^2 + |y|^2; in float64 also that of the differences.
        """
        d = self.values.shape[1]
        if wide:
            return (4 * d + 64) * 2.0**-53 * self.norm2 + 1e-300
        return 1.1 * (2 * d + 32) * 2.0**-24 * self.norm2 + 1e-37


@dataclass(frozen=True, eq=False)
class Tile:
    """All pairs of two strips; with ``upper`` only pairs (i, j) of one set with i < j count."""

    first: Strip
    second: Strip
    upper: bool = False
    _estimates: dict[bool, Tensor] = field(default_factory=dict[bool, Tensor], repr=False)
    _least: dict[tuple[Side, bool], Tensor] = field(default_factory=dict[tuple[Side, bool], Tensor], repr=False)

    def strip(self, side: Side) -> Strip:
        """The rows of one side."""
        return self.first if side is Side.FIRST else self.second

    def _sides(self, side: Side) -> tuple[Strip, Strip]:
        return (self.first, self.second) if side is Side.FIRST else (self.second, self.first)

    @property
    def _precisions(self) -> tuple[bool, ...]:
        """Whether estimates are wide, in the order in which they are tried."""
        fits = float(self.first.norm2.max()) + float(self.second.norm2.max()) < _LONGEST
        return (False, True) if fits else (True,)

    def _estimate(self, wide: bool) -> Tensor:
        """Estimates [padded first, padded second] of squared distances; infinite where there is no pair."""
        if wide not in self._estimates:
            with torch.no_grad(), full_precision(torch.device("cpu")):
                estimates = self.first.factor(wide) @ self.second.factor(wide).T
            if self.upper and self.second.places[0] <= self.first.places[-1]:
                rows = torch.from_numpy(self.first.places)[:, None]
                none = rows >= torch.from_numpy(self.second.places)
                estimates[: len(self.first), : len(self.second)].masked_fill_(none, torch.inf)
            self._estimates[wide] = estimates
        return self._estimates[wide]

    def _segments(self, side: Side, wide: bool) -> Tensor:
        """Smallest estimates [segments of the other side, own rows]."""
        if (side, wide) not in self._least:
            estimates = self._estimate(wide)
            high, long = estimates.shape
            if side is Side.FIRST:
                least = estimates.view(high, -1, _SEGMENT).amin(2).T
            else:
                least = estimates.view(-1, _SEGMENT, long).amin(1)
            self._least[side, wide] = least
        return self._least[side, wide]

    def _below(self, side: Side, limits: FloatArray, wide: bool) -> tuple[IndexArray, IndexArray, FloatArray]:
        """Pairs (own, other) that may be at a squared distance within ``limits`` [own], and the most that it can be."""
        own, other = self._sides(side)
        estimates, mine, theirs = self._estimate(wide), own.error(wide), other.error(wide)
        bound = _rounded_up(limits + mine, estimates.dtype)
        reach = _rounded_up(limits + mine + float(theirs.max()), estimates.dtype)
        segment, i = np.nonzero(self._segments(side, wide).numpy()[:, : len(own)] <= reach)
        s, r = torch.from_numpy(segment), torch.from_numpy(i)
        if side is Side.FIRST:
            met = estimates.view(-1, _SEGMENT).index_select(0, r * (estimates.shape[1] // _SEGMENT) + s)
        else:
            met = estimates.view(-1, _SEGMENT, estimates.shape[1])[s, :, r]
        padded = np.zeros(-(-len(other) // _SEGMENT) * _SEGMENT, dtype=bound.dtype)
        padded[: len(other)] = theirs
        low = met.numpy() - padded.reshape(-1, _SEGMENT)[segment]
        p, q = np.divmod(np.flatnonzero(low <= bound[i][:, None]), _SEGMENT)
        i, j = i[p], segment[p] * _SEGMENT + q
        return i, j, low[p, q] + (2 * theirs[j] + mine[i])

    def _exact(self, side: Side, i: IndexArray, j: IndexArray) -> FloatArray:
        own, other = self._sides(side)
        return squared_distances(own.values, i, other.values, j)

    def within(self, side: Side, limits: FloatArray) -> Pairs:
        """Pairs (own row, other row), as places in their sets, at a squared distance of at most ``limits`` [own]."""
        own, other = self._sides(side)
        i, j, unsure = _nothing()
        for wide in self._precisions:
            i, j, high = self._below(side, limits, wide)
            unsure = np.flatnonzero(high > limits[i])
            if len(unsure) <= _OPEN * (len(own) + len(other)):
                break
        inside = np.ones(len(i), dtype=np.bool_)
        inside[unsure] = self._exact(side, i[unsure], j[unsure]) <= limits[i[unsure]]
        return own.places[i[inside]], other.places[j[inside]]

    def nearest(self, side: Side, limits: FloatArray, k: int) -> tuple[IndexArray, IndexArray, FloatArray]:
        """Own row, other row and squared distance of all pairs that may be among the k nearest of the own row.

        ``limits`` [own] are squared distances beyond which no pair is wanted; a pair at the limit is given.
        """
        own, other = self._sides(side)
        i, j, _ = _nothing()
        for wide in self._precisions:
            few = _OPEN * k * (len(own) + len(other))
            reach = limits if np.isfinite(limits).all() else self._tightened(side, limits, k, wide)
            i, j, _ = self._below(side, reach, wide)
            if len(i) > few and reach is limits:
                i, j, _ = self._below(side, self._tightened(side, limits, k, wide), wide)
            if len(i) <= few:
                break
        squared = self._exact(side, i, j)
        kept = squared <= limits[i]
        return own.places[i[kept]], other.places[j[kept]], squared[kept]

    def _tightened(self, side: Side, limits: FloatArray, k: int, wide: bool) -> FloatArray:
        """Limits, none above what the k-th nearest of this tile can be."""
        own, other = self._sides(side)
        if len(other) < k:
            return limits
        estimates = self._estimate(wide)[: len(self.first), : len(self.second)]
        high = estimates + torch.from_numpy(other.error(wide)).to(estimates.dtype).unsqueeze(int(side))
        kth = high.topk(k, dim=1 - side, largest=False).values.select(1 - side, k - 1).double().numpy()
        return np.minimum(limits, kth + own.error(wide))

    def shares(self, side: Side, square: float) -> tuple[IndexArray, Tensor]:
        """Rows of that side with a pair within the radius, and min(1, d^2 / ``square``) of all pairs of these rows.

        The rows are counted within the strip; the shares keep the shape of the tile, without the other rows of that
        side. Not exact but to rounding: float64 takes the place of float32 where that rounds by more than 1e-4, and
        differences that of estimates where float64 does as well; near-duplicates are always taken from differences.
        """
        own, other = self._sides(side)
        # What rounding usually amounts to, for errors of many terms cancel; the bound would be sqrt(d) times that.
        usual = 8 * math.sqrt(own.values.shape[1]) * float(np.median(own.norm2) + np.median(other.norm2))
        wide = len(self._precisions) == 1 or usual * 2.0**-24 > _ROUNDING * square
        usual *= 2.0**-53 if wide else 2.0**-24
        close = _CLOSE * usual if usual <= _ROUNDING * square else square
        mine, most = own.error(wide), float(other.error(wide).max())
        least = self._segments(side, wide).amin(0).numpy()[: len(own)]
        rows = np.flatnonzero(least <= square + mine + most)
        estimates = self._estimate(wide)[: len(self.first), : len(self.second)]
        if len(rows) < len(own):
            estimates = estimates.index_select(int(side), torch.from_numpy(rows))
        shares = estimates.mul(1.0 / square if square > 0 else torch.inf).clamp_(0.0, 1.0)
        i, j, _ = self._below(side, np.full(len(own), close), wide)
        exact = np.minimum(self._exact(side, i, j), square) / square if square > 0 else self._exact(side, i, j) > 0
        place = torch.from_numpy(np.searchsorted(rows, i)), torch.from_numpy(j)
        shares[place if side is Side.FIRST else place[::-1]] = torch.from_numpy(exact).to(shares.dtype)
        return rows, shares


def _middle(rows: Features) -> FloatArray:
    """A point [d] amid the rows, from which most are not far: the mean of the half that is nearer to the mean."""
    mean = rows.mean(axis=0, dtype=np.float64)
    squared = [np.sum(np.square(rows[part] - mean), axis=1) for part in blocks(len(rows), _WIDTH)]
    distance2 = np.concatenate(squared)
    return rows[distance2 <= np.median(distance2)].mean(axis=0, dtype=np.float64)


def _nothing() -> tuple[IndexArray, IndexArray, IndexArray]:
    return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)


def _rounded_up(limits: FloatArray, dtype: torch.dtype) -> Features:
    """Limits in the precision of estimates, none below what it was; infinite estimates are above all of them."""
    kind = np.float64 if dtype is torch.float64 else np.float32
    with np.errstate(over="ignore"):
        bound = np.nextafter(limits.astype(kind), kind(np.inf))
    return np.minimum(bound, np.finfo(kind).max)


class Tiles:
    """The tiles of ``first`` [m, d] and ``second`` [n, d], or of one set with itself, each pair once.

    ``orders`` are those in which the rows of two sets are cut into strips; as given, if absent.
    """

    def __init__(
        self, first: Features, second: Features | None = None, orders: tuple[IndexArray, IndexArray] | None = None
    ) -> None:
        self._first, self._second = first, first if second is None else second
        self._upper = second is None
        self._orders = orders or (np.arange(len(self._first)), np.arange(len(self._second)))

    def _wanted(self, left: slice, right: slice) -> bool:
        return not self._upper or right.stop > left.start + 1

    def _places(self) -> Iterator[tuple[list[slice], slice]]:
        """Strips of the second set, each with those of the first that it meets while they are held."""
        left = list(blocks(len(self._first), _HEIGHT))
        for held in blocks(len(left), _HELD):
            for right in blocks(len(self._second), _WIDTH):
                yield [part for part in left[held] if self._wanted(part, right)], right

    def __len__(self) -> int:
        return sum(len(left) for left, _ in self._places())

    def __iter__(self) -> Iterator[Tile]:
        centre = _middle(self._second)
        held: dict[int, Strip] = {}
        for left, right in self._places():
            held = {
                part.start: held.get(part.start) or Strip(self._first, self._orders[0][part], Side.FIRST, centre)
                for part in left
            }
            if held:
                passing = Strip(self._second, self._orders[1][right], Side.SECOND, centre)
                for strip in held.values():
                    yield Tile(strip, passing, self._upper)

    def watched(self, progress: Progress, label: str) -> Iterator[Tile]:
        """The same, each reported once it has been dealt with."""
        with progress.task(label, len(self)) as task:
            for tile in self:
                yield tile
                task.advance()
