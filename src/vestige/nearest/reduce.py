"""Reductions that stream over exact distances: nearest rows, counts and pairs within a radius.

Large searches on a CPU look at lower bounds first where a sample says that this pays (:mod:`vestige.nearest.plan`,
:mod:`vestige.nearest.screen`); all others go through tiles of exact distances. The result is the same.

A radius is a published distance: ``sqrt(mean((a - b)**2)) / 255``, root mean square with pixels in [0, 1]. Every
result is the same for every budget and device, and ties go to the lower index.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import torch

from vestige.errors import EmptySet, InvalidInput, Unsupported
from vestige.nearest.exact import BUDGET, WHITE2, Block, Bytes, blocks, check
from vestige.nearest.plan import plan_topk, plan_within
from vestige.nearest.screen import Integers, near_pairs, topk_keys

_SPARSE = 8  # least ratio of a tile's rows to those nearer than the k-th for which picking these is cheaper

# Twice the rounding that rms() and its square can add, and less than the gap between two squared distances.
_SLACK = 1 + Fraction(1, 2**50)


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest rows of each query, nearest first, the lower index first among equals.

    ``distance2`` and ``index`` are int64 [n, k]; :func:`rms` turns the former into published distances.
    """

    distance2: Integers
    index: Integers


def rms(distance2: npt.ArrayLike, dim: int) -> npt.NDArray[np.float64]:
    """Published distance in [0, 1] of squared uint8 distances over ``dim`` pixels: ``sqrt(distance2 / dim) / 255``."""
    return np.asarray(np.sqrt(np.asarray(distance2, np.float64) / dim) / 255)


def radius_limit(radius: float, dim: int) -> int:
    """Largest squared uint8 distance over ``dim`` pixels that lies within ``radius``.

    ``floor(radius**2 * 255**2 * dim)`` in rational arithmetic, where equality holds up to the rounding of float64 (one
    part in 2**50 of the square): 0.15 means the decimal number, and ``radius_limit(rms(v, dim), dim) == v``.

    Raises
    ------
    InvalidInput : a radius that is negative or not finite.
    """
    if not math.isfinite(radius) or radius < 0:
        raise InvalidInput(
            f"a radius of {radius}.",
            expected="a root-mean-square distance with pixels in [0, 1], zero or more.",
            remedy="give a number such as 0.05.",
        )
    return min(math.floor(Fraction(float(radius)) ** 2 * WHITE2 * dim * _SLACK), WHITE2 * dim)


def topk(
    queries: Bytes,
    rows: Bytes,
    k: int,
    *,
    exclude_same_index: bool = False,
    budget: int = BUDGET,
    device: str = "cpu",
) -> Neighbours:
    """The k nearest ``rows`` [m, d] of each of the ``queries`` [n, d], both uint8.

    Results have ``min(k, m)`` columns, or ``min(k, m - 1)`` where a query may not meet the row of its own index.

    Raises
    ------
    InvalidInput : k below one.
    EmptySet : no row is left to be a neighbour.
    Unsupported : ``255**2 * d * m`` beyond int64.
    """
    check(queries, rows)
    m, d = rows.shape
    available = m - exclude_same_index
    if k < 1:
        raise InvalidInput(f"k = {k}.", expected="at least one neighbour.", remedy="ask for k = 1 or more.")
    if not available:
        raise EmptySet("a single row, and it is excluded.", expected="another row.", remedy="check the data set.")
    if (WHITE2 * d + 2) * m > torch.iinfo(torch.int64).max:
        raise Unsupported(f"{m} rows of {d} pixels.", expected="a smaller set.", remedy="split the rows and merge.")
    k = min(k, available)
    plan = plan_topk(
        queries, rows, k, exclude_same_index=exclude_same_index, budget=budget, device=torch.device(device)
    )
    if plan is None:
        keys = _tile_keys(queries, rows, k, None if not exclude_same_index else np.arange(m), budget, device)
    else:
        keys, undone = topk_keys(queries, rows, k, *plan, exclude_same_index=exclude_same_index)
        own = undone if exclude_same_index else None
        keys[undone] = _tile_keys(queries[undone], rows, k, own, budget, device)
    return Neighbours(keys // m, keys % m)


def nearest(
    queries: Bytes,
    rows: Bytes,
    *,
    exclude_same_index: bool = False,
    budget: int = BUDGET,
    device: str = "cpu",
) -> Neighbours:
    """The nearest row of each query: :func:`topk` with k = 1, so both arrays are [n, 1]."""
    return topk(queries, rows, 1, exclude_same_index=exclude_same_index, budget=budget, device=device)


def count_within(
    queries: Bytes,
    rows: Bytes,
    radius: float,
    *,
    exclude_same_index: bool = False,
    budget: int = BUDGET,
    device: str = "cpu",
) -> Integers:
    """How many rows lie within ``radius`` of each query, int64 [n]: the k of (k, l, delta)-eidetic memorization.

    Source: Carlini et al. 2023, arXiv 2301.13188, where delta is the radius.
    """
    check(queries, rows)
    limit = radius_limit(radius, rows.shape[1])
    counts = np.zeros(len(queries), np.int64)
    plan = plan_within(queries, rows, limit, same_index=exclude_same_index, budget=budget, device=torch.device(device))
    if plan is not None:
        for pairs in near_pairs(queries, rows, limit, *plan, budget=budget):
            if exclude_same_index:
                pairs = pairs[pairs[:, 0] != pairs[:, 1]]
            counts += np.bincount(pairs[:, 0], minlength=len(queries))
        return counts
    for block in blocks(queries, rows, exclude_same_index=exclude_same_index, budget=budget, device=device):
        counts[block.query] += (block.distance2 <= limit).sum(1).cpu().numpy()
    return counts


def pairs_within(rows: Bytes, radius: float, *, budget: int = BUDGET, device: str = "cpu") -> Integers:
    """All pairs i < j of rows within ``radius``, int64 [p, 2] in lexicographic order."""
    return _sorted(hits(rows, rows, radius, upper=True, budget=budget, device=device))


def pairs_within_two(
    queries: Bytes, rows: Bytes, radius: float, *, budget: int = BUDGET, device: str = "cpu"
) -> Integers:
    """All pairs (query, row) within ``radius``, int64 [p, 2] in lexicographic order."""
    return _sorted(hits(queries, rows, radius, budget=budget, device=device))


def hits(
    queries: Bytes,
    rows: Bytes,
    radius: float,
    *,
    upper: bool = False,
    budget: int = BUDGET,
    device: str = "cpu",
) -> Iterator[Integers]:
    """Pairs within ``radius`` tile by tile, int64 [p, 2], for reductions that need not keep them all.

    ``upper`` keeps the pairs i < j only.
    """
    check(queries, rows)
    limit = radius_limit(radius, rows.shape[1])
    plan = plan_within(queries, rows, limit, same_index=upper, budget=budget, device=torch.device(device))
    if plan is not None:
        yield from near_pairs(queries, rows, limit, *plan, upper=upper, budget=budget)
        return
    for block in blocks(queries, rows, upper=upper, budget=budget, device=device):
        pairs = (block.distance2 <= limit).nonzero().cpu().numpy()
        pairs += (block.query.start, block.row.start)
        yield pairs[pairs[:, 0] < pairs[:, 1]] if upper else pairs


def _tile_keys(queries: Bytes, rows: Bytes, k: int, own: Integers | None, budget: int, device: str) -> Integers:
    """Keys ``distance2 * m + index`` [n, k] of the nearest rows, ascending; ``own`` [n] names a row to leave out."""
    m, d = rows.shape
    keys = np.empty((len(queries), k), np.int64)
    tiles = blocks(queries, rows, per_query=64 * k, budget=budget, device=device)
    for query, strip in groupby(tiles, key=attrgetter("query")):
        best = torch.empty((query.stop - query.start, 0), dtype=torch.int64, device=device)
        for block in strip:
            if own is not None:
                mine = np.flatnonzero((own[query] >= block.row.start) & (own[query] < block.row.stop))
                there = torch.from_numpy(own[query][mine] - block.row.start).to(device)
                block.distance2[torch.from_numpy(mine).to(device), there] = WHITE2 * d + 1
            best = _nearer(best, block, k, m)
        keys[query] = best.cpu().numpy()
    return keys


def _nearer(best: torch.Tensor, block: Block, k: int, m: int) -> torch.Tensor:
    """Keys [h, at most k] of the nearest of ``best`` and the tile, ascending.

    A key is distance and index in one integer, ``distance2 * m + index``: keys differ, so the order is total and ties
    cannot move. Once there are k, most of a tile lies beyond the k-th and is never sorted.
    """
    index = torch.arange(block.row.start, block.row.stop, device=best.device)
    near = best.new_empty(0)
    if best.shape[1] == k:
        inside = block.distance2 <= torch.div(best[:, -1:], m, rounding_mode="floor")
        counts = inside.sum(1)
        most = int(counts.max())
        if not most:
            return best
        if most * _SPARSE <= len(index):
            query, row = inside.nonzero(as_tuple=True)
            near = best.new_full((len(best), most), torch.iinfo(torch.int64).max)
            place = torch.arange(len(query), device=best.device) - (counts.cumsum(0) - counts)[query]
            near[query, place] = block.distance2[query, row].to(torch.int64) * m + index[row]
    if not len(near):
        near = _smallest(block.distance2.to(torch.int64).mul_(m).add_(index), k)
    return _smallest(torch.cat((best, near), 1), k)


def _smallest(keys: torch.Tensor, k: int) -> torch.Tensor:
    return keys.topk(min(k, keys.shape[1]), dim=1, largest=False).values


def _sorted(parts: Iterator[Integers]) -> Integers:
    pairs = np.concatenate([np.empty((0, 2), np.int64), *parts])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
