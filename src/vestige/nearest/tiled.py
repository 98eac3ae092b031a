"""The tiled distance of Carlini et al.: the largest of the distances between aligned tiles of two images.

Plain distance calls two images close that share a flat background; the largest tile distance asks every part to be
close. A pair within a radius therefore has every tile within it, and a search can turn down a pair at the first tile
that is not. :func:`tiled_within` goes from cheap bounds to dear ones and keeps the pairs that each leaves: one float32
product for the mean of all tile bounds, then the bounds of the single tiles with finer and finer blocks
(:mod:`vestige.nearest.tiles`), then exact integer sums tile by tile. Every bound is widened by what rounding can do,
so the pairs found are those of brute force.

Source: Carlini et al. 2023, arXiv 2301.13188, the study of Stable Diffusion, with 16 tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from vestige.errors import EmptySet, InvalidInput, ShapeMismatch
from vestige.nearest import kernels
from vestige.nearest.exact import BUDGET, blocks, full_precision
from vestige.nearest.reduce import Integers, radius_limit
from vestige.nearest.screen import bounds, query_factor, row_factor
from vestige.nearest.tiles import Grid, Images, Sums, block_sums

_CPU = torch.device("cpu")
_PIXELS = 1 << 21  # pixels, or coordinates, gathered at a time for single pairs
_MANY = 1 / 64  # share of the pairs of a strip from which exact tiles of all of them are cheaper
_LEAST = 1 << 20


@dataclass(frozen=True)
class Stage:
    """How many pairs a stage of the search left."""

    name: str
    survivors: int


@dataclass(frozen=True, eq=False)
class TiledPairs:
    """Pairs [p, 2] within a radius in lexicographic order, the tiled distance [p] of each, and the stages passed."""

    pairs: Integers
    distance: npt.NDArray[np.float64]
    stages: tuple[Stage, ...]


def tiled_distance(
    queries: Images, rows: Images, pairs: Integers, *, grid: int = 4, budget: int = BUDGET
) -> npt.NDArray[np.float64]:
    """Largest root-mean-square distance over the tiles, pixels in [0, 1], of each pair (i, j) of ``pairs`` [p, 2].

    ``queries`` [n, channels, height, width] and ``rows`` [m, channels, height, width] are uint8, cut into ``grid`` x
    ``grid`` tiles; the distance of a pair is exact up to the rounding of the last division and root.

    Raises
    ------
    InvalidInput, ShapeMismatch : as for :func:`tiled_within`.
    """
    cut = _grid(queries, rows, grid)
    worst = np.zeros(len(pairs))
    for number, size in enumerate(cut.sizes.tolist()):
        left, right = cut.tile(queries, number), cut.tile(rows, number)
        worst = np.maximum(worst, _tile_distances(left, right, pairs, budget) / size)
    return np.sqrt(worst) / 255


def tiled_within(queries: Images, rows: Images, radius: float, *, grid: int = 4, budget: int = BUDGET) -> TiledPairs:
    """All pairs of uint8 ``queries`` and ``rows`` [n, channels, height, width] of tiled distance at most ``radius``.

    The radius is root mean square with pixels in [0, 1]; 0.15 is the published one.

    Raises
    ------
    InvalidInput : not uint8 images, a radius that is none, a grid finer than the pixels, or a budget that is too small.
    ShapeMismatch : queries and rows of different sizes.
    EmptySet : no rows.
    """
    return _search(queries, rows, radius, grid, budget, upper=False)


def tiled_pairs_within(images: Images, radius: float, *, grid: int = 4, budget: int = BUDGET) -> TiledPairs:
    """All pairs i < j of uint8 images [n, channels, height, width] of tiled distance at most ``radius``.

    Raises
    ------
    InvalidInput, EmptySet : as for :func:`tiled_within`.
    """
    return _search(images, images, radius, grid, budget, upper=True)


@dataclass(frozen=True, eq=False)
class _Part:
    """Consecutive images and the sums of their blocks."""

    start: int
    images: Images
    sums: Sums


@dataclass(frozen=True, eq=False)
class _Limits:
    """Largest squared distance of each tile [tiles], the tiles in the order in which to look at them."""

    squared: Integers
    order: Integers


def _search(queries: Images, rows: Images, radius: float, grid: int, budget: int, *, upper: bool) -> TiledPairs:
    cut = _grid(queries, rows, grid)
    squared = np.array([radius_limit(radius, size) for size in cut.sizes.tolist()], np.int64)
    names = [f"{level} x {level} blocks of each tile" for level in cut.levels]
    counts = dict.fromkeys(["all pairs", "mean over the tiles", *names, "exact"], 0)
    found: list[tuple[Integers, npt.NDArray[np.float64]]] = []
    for left, right, pairs in _screened(queries, rows, cut, int(squared.sum()), budget, upper, counts):
        # What varies most differs most: such tiles come first.
        limits = _Limits(squared, np.argsort(-left.sums.coordinates(1, slice(None))[:, :, -1].mean(0), kind="stable"))
        counts["mean over the tiles"] += len(pairs)
        for level, name in zip(cut.levels, names, strict=True):
            pairs = _by_level(left.sums, right.sums, pairs, level, squared)
            counts[name] += len(pairs)
        if len(pairs) > max(_LEAST // len(queries[0].ravel()), _MANY * len(left.images) * len(right.images)):
            pairs, worst = _all_exact(left.images, right.images, pairs, cut, limits, budget)
        else:
            pairs, worst = _exact(left.images, right.images, pairs, cut, limits, budget)
        counts["exact"] += len(pairs)
        found.append((pairs + np.array([left.start, right.start]), worst))
    stages = tuple(Stage(name, count) for name, count in counts.items())
    pairs = np.concatenate([np.empty((0, 2), np.int64), *(part for part, _ in found)])
    worst = np.concatenate([np.empty(0), *(part for _, part in found)])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return TiledPairs(pairs[order], np.sqrt(worst[order]) / 255, stages)


def _grid(queries: Images, rows: Images, side: int) -> Grid:
    for name, images in (("queries", queries), ("rows", rows)):
        if images.dtype != np.uint8 or images.ndim != 4 or not images.shape[1]:
            raise InvalidInput(
                f"{name} is {images.dtype} of shape {images.shape}.",
                expected="uint8 of shape [images, channels, height, width].",
                remedy="keep images as uint8 and do not flatten them.",
            )
    if queries.shape[1:] != rows.shape[1:]:
        raise ShapeMismatch(
            f"queries of {queries.shape[1:]} and rows of {rows.shape[1:]}.",
            expected="the same channels, height and width in both.",
            remedy="resize one set to the size of the other.",
        )
    if not len(rows):
        raise EmptySet("rows is empty.", expected="at least one image to compare with.", remedy="check the data set.")
    return Grid(side, *rows.shape[1:])


def _screened(
    queries: Images, rows: Images, grid: Grid, limit: int, budget: int, upper: bool, counts: dict[str, int]
) -> Iterator[tuple[_Part, _Part, Integers]]:
    """Pairs, counted within their parts, of which the mean over the tiles does not show that they are too far apart."""
    level = 2 if 2 in grid.levels else 1
    width = grid.side**2 * (grid.channels * level**2 + 1) + 1
    strip, segment = _shape(len(queries), len(rows), width, grid, budget)
    kernel = kernels.fastest_float(_CPU, len(queries) * len(rows) * width)
    for left in range(0, len(rows), segment):
        right = _part(rows, left, segment, grid)
        points = right.sums.points(level)
        factor, slack, length = row_factor(points), float(points.slack.max()), float(points.norm2.max()) ** 0.5
        estimates = torch.empty((strip, len(factor)))
        for top in range(0, len(queries), strip):
            if upper and left + len(right.images) <= top:
                break
            part = _part(queries, top, strip, grid)
            size = len(part.images)
            points = part.sums.points(level)
            with torch.no_grad(), full_precision(_CPU):
                kernels.product_into(kernel, query_factor(points), factor, estimates[:size])
            near = estimates[:size, : len(right.images)].numpy() <= bounds(points, limit, slack, length)[:, None]
            if upper:
                near &= np.arange(top, top + size)[:, None] < np.arange(left, left + len(right.images))
            counts["all pairs"] += _pairs_of(top, size, left, len(right.images), upper)
            flat = np.flatnonzero(near)
            yield part, right, np.stack(np.divmod(flat, near.shape[1]), 1)


def _pairs_of(top: int, size: int, left: int, width: int, upper: bool) -> int:
    """Pairs of a strip and a segment; with ``upper`` those i < j."""
    if not upper:
        return size * width
    return int(np.clip(left + width - 1 - np.arange(top, top + size), 0, width).sum())


def _part(images: Images, start: int, size: int, grid: Grid) -> _Part:
    part = images[start : start + size]
    return _Part(start, part, block_sums(part, grid))


def _shape(n: int, m: int, width: int, grid: Grid, budget: int) -> tuple[int, int]:
    """Queries of a strip and rows of a segment.

    An image costs its finest sums, its coordinates (twice while they are made, and those of one block a tile) and the
    factor; a pair costs its estimate, and where every pair is looked at exactly a mark, a worst tile and what it takes
    to list it.
    """
    image = 16 * grid.channels * (grid.side * grid.levels[-1]) ** 2 + 16 * width + 24 * grid.side**2
    segment = min(m, 1 << 16, budget // 4 // image)
    strip = min(n, 512, budget // 4 // (image + 64 * segment)) if segment else 0
    if n and not strip:
        raise InvalidInput(
            f"a budget of {budget} bytes.", expected=f"at least {8 * (image + 64)}.", remedy="raise the budget."
        )
    return max(strip, 1), segment


def _by_level(left: Sums, right: Sums, pairs: Integers, level: int, squared: Integers) -> Integers:
    """Pairs of which every tile may lie within its limit by the coordinates of that level.

    The difference of stored coordinates is off by one rounding each, so its length by 2**-24 of itself, and float32
    sums of squares by a further ``gamma`` of it; 1e-4 covers both for any level.
    """
    if not len(pairs):
        return pairs
    queries, i = np.unique(pairs[:, 0], return_inverse=True)
    rows, j = np.unique(pairs[:, 1], return_inverse=True)
    one, two = left.coordinates(level, queries), right.coordinates(level, rows)
    slack_one, slack_two = left.slack(queries), right.slack(rows)
    kept = np.empty(len(pairs), bool)
    step = max(1, _PIXELS // one[0].size)
    for top in range(0, len(pairs), step):
        part = slice(top, top + step)
        difference = one[i[part]] - two[j[part]]
        reach = np.sqrt(squared) + slack_one[i[part]] + slack_two[j[part]]
        kept[part] = (np.einsum("ptc,ptc->pt", difference, difference) <= reach**2 * 1.0001).all(1)
    return pairs[kept]


def _exact(
    queries: Images, rows: Images, pairs: Integers, grid: Grid, limits: _Limits, budget: int
) -> tuple[Integers, npt.NDArray[np.float64]]:
    """Pairs of which every tile lies within its limit, and the largest mean square over their tiles."""
    worst = np.zeros(len(pairs))
    sizes = grid.sizes
    for number in limits.order.tolist():
        distance2 = _tile_distances(grid.tile(queries, number), grid.tile(rows, number), pairs, budget)
        near = distance2 <= limits.squared[number]
        pairs, worst = pairs[near], np.maximum(worst[near], distance2[near] / sizes[number])
    return pairs, worst


def _tile_distances(queries: Images, rows: Images, pairs: Integers, budget: int) -> Integers:
    """Exact squared distance [p] of one tile of each pair."""
    total = np.empty(len(pairs), np.int64)
    step = max(1, min(_PIXELS, budget // 64) // max(1, rows[:1].size))
    for top in range(0, len(pairs), step):
        part = pairs[top : top + step]
        difference = queries[part[:, 0]].reshape(len(part), -1).astype(np.int32)
        difference -= rows[part[:, 1]].reshape(len(part), -1)
        # Sums of a few thousand squares stay within int32; they are added up in int64.
        starts = np.arange(0, difference.shape[1], 4096)
        total[top : top + step] = np.add.reduceat(np.square(difference), starts, axis=1).sum(1, dtype=np.int64)
    return total


def _all_exact(
    queries: Images, rows: Images, pairs: Integers, grid: Grid, limits: _Limits, budget: int
) -> tuple[Integers, npt.NDArray[np.float64]]:
    """The same by products of whole tiles, for the strip in which little could be turned down."""
    near = np.zeros((len(queries), len(rows)), bool)
    near[pairs[:, 0], pairs[:, 1]] = True
    worst = np.zeros(near.shape)
    for number, size in enumerate(grid.sizes.tolist()):
        left, right = (grid.tile(images, number).reshape(len(images), -1) for images in (queries, rows))
        for block in blocks(left, right, budget=budget // 4):
            distance2 = block.distance2.numpy()
            near[block.query, block.row] &= distance2 <= limits.squared[number]
            part = worst[block.query, block.row]
            np.maximum(part, distance2 / size, out=part)
    pairs = np.argwhere(near)
    return pairs, worst[near]
