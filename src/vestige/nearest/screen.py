"""Searches that look at short lower bounds first and take exact distances of what remains.

One float32 product of short coordinates (:mod:`vestige.nearest.projection`) bounds all pairs of a strip of queries and
a segment of rows from below. A pair is passed over only where the bound, less everything that rounding can have added
to it, lies beyond the radius; of all others the exact integer distance is taken. Results are those of the exact tiles.
Whether this pays depends on the data, so it is estimated from a sample first; queries that keep too many rows are
left to the exact tiles.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from vestige.nearest import kernels
from vestige.nearest.exact import Bytes, blocks, distances_from, full_precision, row_offsets
from vestige.nearest.kernels import Kernel
from vestige.nearest.projection import Doubles, Floats, Points, Projection, gamma

Integers = npt.NDArray[np.int64]

NEVER = np.iinfo(np.int64).max
"""Key of a neighbour that has not been found."""

_CPU = torch.device("cpu")
_FAR = np.float32(1e38)
_ROOT = 1 + 1e-12  # covers the rounding of a root
_MANY = 1 / 32  # share of a segment from which exact tiles cost a query less than the rows it keeps one by one
_STEP = 64  # rows taken before the radius is looked at again
_GROUPS = 32  # rows to a group, of which only the one of least bound is a first guess
_EXACT = 2.0**24  # integers up to here are float32 numbers


@dataclass(frozen=True)
class Shape:
    """Queries of a strip and rows of a segment."""

    strip: int
    segment: int


def fitting(n: int, m: int, columns: int, pixels: int, budget: int) -> Shape | None:
    """The shape that keeps within the budget, or None where little would fit.

    Three eighths of the budget hold the coordinates of a segment (twice while they are made of a projection), three
    eighths the bounds of a strip; the rest is for exact tiles and gathered rows.
    """
    row = 4 * columns if columns == pixels else 8 * (columns + 1)
    segment = min(m, 1 << 16, 3 * budget // (8 * row))
    strip = min(n, 1024, 3 * budget // (8 * (5 * segment + 16 * columns))) if segment else 0
    if strip < min(n, 16) or segment < min(m, 2048) or 24 * (min(pixels, 1024) + (1 << 20)) > budget // 4:
        return None
    return Shape(strip, segment)


@dataclass(frozen=True, eq=False)
class _Segment:
    """Rows as the right factor of a product that gives ``|x|^2 - 2 q x``, and what bounds its rounding.

    A projection's factor [w, c + 1] carries the squares and the segment ``offsets`` of its rows. That of whole pixels
    [w, d] leaves the squares ``norm2`` to be added afterwards, for its products of integers are exact mostly.
    """

    start: int
    rows: Bytes
    factor: torch.Tensor
    offsets: Integers | None
    norm2: Floats | None
    slack: float
    length: float


@dataclass(frozen=True, eq=False)
class _Strip:
    """The estimates [h, w] of queries against a segment, and what turns a squared radius into a bound on them.

    ``norm2`` [h] are the squares of the queries' coordinates.
    """

    start: int
    queries: Bytes
    estimates: Floats
    norm2: Doubles
    reach: Doubles
    shift: Doubles
    segment: _Segment

    def bound(self, i: int, limit: float) -> np.float32:
        """No row within the squared radius ``limit`` of query i has a greater estimate than this."""
        most = (limit**0.5 * _ROOT + self.reach[i]) ** 2 + self.shift[i]
        return np.nextafter(np.float32(most), np.float32(np.inf))


def bounds(points: Points, limit: float, slack: float, length: float) -> Floats:
    """The greatest estimate [n] that a row within the squared radius ``limit`` of each query can have.

    ``slack`` and ``length`` bound those of the rows.
    """
    reach, shift = _bound_terms(points, slack, length)
    most = (limit**0.5 * _ROOT + reach) ** 2 + shift
    return np.nextafter(most.astype(np.float32), np.float32(np.inf))


def _bound_terms(points: Points, slack: float, length: float) -> tuple[Doubles, Doubles]:
    """What to add [n] to a radius, and then to its square, for a bound on the estimates of the rows within it.

    Coordinates of such a pair are no farther apart than the radius and both slacks. The estimate of
    ``|x|^2 - 2 q x`` has c + 1 terms, the last rounded before: its error is at most
    ``gamma(c + 3) (2 |q| |x| + |x|^2)``.
    """
    error = gamma(points.coordinates.shape[1] + 4) * (2 * np.sqrt(points.norm2) * length + length**2)
    return points.slack + slack, 1.01 * error + 1e-6 - points.norm2


def query_factor(points: Points) -> torch.Tensor:
    """Queries as the left factor [h, c + 1] of the product of estimates."""
    factor = np.empty((len(points.norm2), points.coordinates.shape[1] + 1), np.float32)
    np.multiply(points.coordinates, -2, out=factor[:, :-1])
    factor[:, -1] = 1
    return torch.from_numpy(factor)


def row_factor(points: Points) -> torch.Tensor:
    """Rows as the right factor [w, c + 1]."""
    factor = np.empty((len(points.norm2), points.coordinates.shape[1] + 1), np.float32)
    factor[:, :-1], factor[:, -1] = points.coordinates, points.norm2
    return torch.from_numpy(factor)


def topk_keys(
    queries: Bytes, rows: Bytes, k: int, projection: Projection, shape: Shape, *, exclude_same_index: bool = False
) -> tuple[Integers, Integers]:
    """Keys ``distance2 * m + index`` [n, k] of the k nearest rows, ascending, and the queries left undone.

    Those keep too many rows for a screen to pay; their keys mean nothing.
    """
    m = len(rows)
    best = np.full((len(queries), k), NEVER, np.int64)
    undone = np.zeros(len(queries), bool)
    for strip in _strips(queries, rows, projection, shape):
        size = len(strip.segment.rows)
        if exclude_same_index:
            _exclude(strip)
        first = _first_guesses(strip.estimates, size, k) if strip.segment.start == 0 else None
        for i in range(len(strip.queries)):
            own, estimates = best[strip.start + i], strip.estimates[i, :size]
            if first is not None:
                guesses = first[i][first[i] < size]
                guesses = guesses[estimates[guesses] < _FAR]
                _merge(own, _keys(strip, i, guesses, m))
                estimates[guesses] = np.inf
            if undone[strip.start + i]:
                continue
            undone[strip.start + i] = not _refine(strip, i, own, m)
    return best, np.flatnonzero(undone)


def near_pairs(
    queries: Bytes, rows: Bytes, limit: int, projection: Projection, shape: Shape, *, upper: bool = False, budget: int
) -> Iterator[Integers]:
    """All pairs (query, row) [p, 2] of squared distance at most ``limit``, strip by strip; with ``upper`` i < j."""
    undone: list[int] = []
    segment: _Segment | None = None
    for strip in _strips(queries, rows, projection, shape, upper):
        if segment is not None and strip.segment is not segment:
            yield from _tile_pairs(queries, segment, undone, limit, upper, budget)
            undone = []
        segment = strip.segment
        found = [np.empty((0, 2), np.int64)]
        for i in range(len(strip.queries)):
            near = _within(strip, i, limit)
            if len(near) > _MANY * len(segment.rows):
                undone.append(strip.start + i)
            elif len(near):
                found.append(_pairs(strip, i, near, limit, upper))
        yield np.concatenate(found)
    if segment is not None:
        yield from _tile_pairs(queries, segment, undone, limit, upper, budget)


def _strips(queries: Bytes, rows: Bytes, projection: Projection, shape: Shape, upper: bool = False) -> Iterator[_Strip]:
    """Estimates strip by strip, all strips of a segment before the next segment."""
    kernel = kernels.fastest_float(_CPU, len(queries) * len(rows) * projection.columns)
    buffer = torch.empty(shape.strip * _padded(min(shape.segment, len(rows))))
    room = np.empty((min(shape.segment, len(rows)), projection.columns), np.float32)
    for left in range(0, len(rows), shape.segment):
        segment = _segment(rows[left : left + shape.segment], left, projection, room)
        size, width = len(segment.rows), _padded(len(segment.rows))
        for top in range(0, len(queries), shape.strip):
            if upper and left + size <= top:
                break
            part = queries[top : top + shape.strip]
            points = projection.points(part)
            estimates = buffer[: len(part) * width].view(len(part), width)
            estimates[:, size:] = 3 * float(_FAR)  # whole groups, the last filled with what is far from everything
            with torch.no_grad(), full_precision(_CPU):
                _estimate(points, segment, kernel, estimates[:, :size])
            terms = _bound_terms(points, segment.slack, segment.length)
            yield _Strip(top, part, estimates.numpy(), points.norm2, *terms, segment)


def _estimate(points: Points, segment: _Segment, kernel: Kernel, out: torch.Tensor) -> None:
    """Write ``|x|^2 - 2 q x`` of queries and a segment to ``out`` [h, w]."""
    if segment.norm2 is None:
        kernels.product_into(kernel, query_factor(points), segment.factor, out)
        return
    kernels.product_into(kernel, torch.from_numpy(points.coordinates).mul_(-2), segment.factor, out)
    out += torch.from_numpy(segment.norm2)


def _padded(size: int) -> int:
    return -(-size // _GROUPS) * _GROUPS


def _segment(rows: Bytes, start: int, projection: Projection, room: Floats) -> _Segment:
    points = projection.points(rows, room)
    slack, length = float(points.slack.max()), float(points.norm2.max()) ** 0.5
    if projection.vectors is None:
        factor, offsets, norm2 = torch.from_numpy(points.coordinates), None, points.norm2.astype(np.float32)
    else:
        factor, offsets, norm2 = row_factor(points), row_offsets(rows), None
    return _Segment(start, rows, factor, offsets, norm2, slack, length)


def _exclude(strip: _Strip) -> None:
    """Put each query's own row out of reach."""
    for i in range(len(strip.queries)):
        own = strip.start + i - strip.segment.start
        if 0 <= own < len(strip.segment.rows):
            strip.estimates[i, own] = np.inf


def _first_guesses(estimates: Floats, size: int, k: int) -> Integers:
    """k rows a query that are likely near [h, k]: the best of the groups whose best are best.

    Any rows would do, since their exact distances only give a radius to start from.
    """
    group = _GROUPS
    while group > 1 and size // group < 4 * k:
        group //= 2
    height, width = estimates.shape
    table = torch.from_numpy(estimates).view(height, group, width // group)
    groups = table.amin(1).topk(min(k, width // group), dim=1, largest=False, sorted=False).indices
    inside = table.gather(2, groups[:, None].expand(-1, group, -1)).argmin(1)
    return (inside * (width // group) + groups).numpy()


def _within(strip: _Strip, i: int, limit: int) -> Integers:
    """Rows of the segment that may lie within the squared radius of query i, all that do among them."""
    return np.flatnonzero(strip.estimates[i, : len(strip.segment.rows)] <= strip.bound(i, float(limit)))


def _refine(strip: _Strip, i: int, best: Integers, m: int) -> bool:
    """Merge the rows near query i into ``best``, likeliest first; False where too many are left to do so.

    The k-th distance shrinks on the way and turns down rows that were within it at first.
    """
    near = _within(strip, i, int(best[-1]) // m)
    estimates = strip.estimates[i, near]
    order = estimates.argsort()
    near, estimates = near[order], estimates[order]
    step = max(_STEP, len(best))
    for top in itertools.count(0, step):
        if top >= len(near):
            return True
        if top and len(near) > _MANY * len(strip.segment.rows):
            return False
        _merge(best, _keys(strip, i, near[top : top + step], m))
        near = near[: estimates.searchsorted(strip.bound(i, float(int(best[-1]) // m)), "right")]
    return True


def _distances(strip: _Strip, i: int, near: Integers) -> Integers:
    """Exact squared distances of query i and the rows ``near`` of the segment.

    A product of whole pixels sums integers. By Cauchy-Schwarz no partial sum of ``q x`` exceeds ``|q| |x|``; where
    that, ``|x|^2`` and the estimate are at most ``2**24``, nothing was rounded and the estimate is the answer.
    """
    segment, norm2 = strip.segment, strip.segment.norm2
    if norm2 is None:
        return distances_from(strip.queries[i], segment.rows, near, segment.offsets)
    own, squares, estimates = strip.norm2[i], norm2[near], strip.estimates[i, near]
    total = (estimates + own).astype(np.int64)
    rounded = (np.abs(estimates) >= _EXACT) | (squares > _EXACT) | (own * squares > _EXACT**2)
    if rounded.any():
        total[rounded] = distances_from(strip.queries[i], segment.rows, near[rounded])
    return total


def _keys(strip: _Strip, i: int, near: Integers, m: int) -> Integers:
    return _distances(strip, i, near) * m + (near + strip.segment.start)


def _merge(best: Integers, keys: Integers) -> None:
    """Keep the smallest of both in ``best``, ascending."""
    keys = keys[keys < best[-1]]
    if len(keys):
        best[:] = np.sort(np.concatenate((best, keys)))[: len(best)]


def _pairs(strip: _Strip, i: int, near: Integers, limit: int, upper: bool) -> Integers:
    query = strip.start + i
    near = near[_distances(strip, i, near) <= limit] + strip.segment.start
    if upper:
        near = near[near > query]
    return np.stack((np.full(len(near), query), near), 1)


def _tile_pairs(
    queries: Bytes, segment: _Segment, chosen: list[int], limit: int, upper: bool, budget: int
) -> Iterator[Integers]:
    """Pairs of the chosen queries and a segment, tile by tile."""
    names = np.array(chosen, np.int64)
    for block in blocks(queries[names], segment.rows, budget=budget // 4):
        pairs = (block.distance2 <= limit).nonzero().numpy()
        pairs[:, 0] = names[pairs[:, 0] + block.query.start]
        pairs[:, 1] += block.row.start + segment.start
        yield pairs[pairs[:, 0] < pairs[:, 1]] if upper else pairs
