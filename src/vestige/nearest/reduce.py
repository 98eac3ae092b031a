"""Reductions that stream over the tiles of exact distances: nearest rows, counts and pairs within a radius.

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
from vestige.nearest.exact import BUDGET, WHITE2, Bytes, blocks, check

Integers = npt.NDArray[np.int64]

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
    keys = np.empty((len(queries), k), np.int64)
    tiles = blocks(queries, rows, exclude_same_index=exclude_same_index, per_query=64 * k, budget=budget, device=device)
    for query, strip in groupby(tiles, key=attrgetter("query")):
        best = torch.empty((query.stop - query.start, 0), dtype=torch.int64, device=device)
        for block in strip:
            # Distance and index in one integer: keys differ, so the order is total and ties cannot move.
            key = block.distance2.to(torch.int64).mul_(m)
            key += torch.arange(block.row.start, block.row.stop, device=device)
            best = _smallest(torch.cat((best, _smallest(key, k)), 1), k)
        keys[query] = best.cpu().numpy()
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
    for block in blocks(queries, rows, upper=upper, budget=budget, device=device):
        pairs = (block.distance2 <= limit).nonzero().cpu().numpy()
        pairs += (block.query.start, block.row.start)
        yield pairs[pairs[:, 0] < pairs[:, 1]] if upper else pairs


def _smallest(keys: torch.Tensor, k: int) -> torch.Tensor:
    return keys.topk(min(k, keys.shape[1]), dim=1, largest=False).values


def _sorted(parts: Iterator[Integers]) -> Integers:
    pairs = np.concatenate([np.empty((0, 2), np.int64), *parts])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
