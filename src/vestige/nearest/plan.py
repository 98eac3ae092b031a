"""Whether a search looks at lower bounds first, and at which: an estimate of the work from a sample.

Work is counted in multiplications at the speed of a matrix product. The constants were measured; they steer how long a
search takes and have no part in what it finds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from vestige.nearest import kernels
from vestige.nearest.exact import Bytes, blocks
from vestige.nearest.projection import Projection, centred_pixels, gamma, principal
from vestige.nearest.screen import Integers, Shape, fitting

_WORTH = 1 << 35  # multiplications below which a search is over before a sample pays
_RANKS = (32, 64, 128, 256)
_LONG = 1 << 39  # multiplications from which twice the ranks pay for being learnt
_QUERIES, _ROWS = 64, 2048  # of the sample
_ESTIMATE = 60.0  # work to look at an estimate
_TILE = 250.0  # work to look at an exact tile's entry
_CONVERTED = 1.25  # a multiplication of an exact tile, whose products become integers chunk by chunk
_TAKEN = 26.0  # work for each pixel of a row that is taken on its own, by one thread
_SETTLED = 1000.0  # work for a row of which the estimate is mostly the exact distance


class Plan(NamedTuple):
    """What to project on and in which portions."""

    projection: Projection
    shape: Shape


class _Sample(NamedTuple):
    """Some queries and rows with all their exact distances [q, r]."""

    queries: Bytes
    rows: Bytes
    distance2: Integers


def plan_topk(
    queries: Bytes, rows: Bytes, k: int, *, exclude_same_index: bool, budget: int, device: torch.device
) -> Plan | None:
    """How to screen for the k nearest rows, or None where exact tiles are expected to be faster."""
    rank = max(1, round(k * min(_ROWS, len(rows)) / len(rows)))
    return _plan(
        queries,
        rows,
        lambda distance2: np.partition(distance2, rank - 1, axis=1)[:, rank - 1 : rank],
        taken=k * (2 + math.log(max(1.0, len(rows) / (1 << 16)))),
        same_index=exclude_same_index,
        budget=budget,
        device=device,
    )


def plan_within(
    queries: Bytes, rows: Bytes, limit: int, *, same_index: bool, budget: int, device: torch.device
) -> Plan | None:
    """How to screen for the pairs of squared distance at most ``limit``, or None for exact tiles."""
    return _plan(
        queries,
        rows,
        lambda distance2: np.full((len(distance2), 1), limit),
        taken=0.0,
        same_index=same_index,
        budget=budget,
        device=device,
    )


def _plan(
    queries: Bytes,
    rows: Bytes,
    limits: Callable[[Integers], Integers],
    *,
    taken: float,
    same_index: bool,
    budget: int,
    device: torch.device,
) -> Plan | None:
    n, m, d = len(queries), len(rows), rows.shape[1]
    pairs = n * m
    if device.type != "cpu" or pairs * d < _WORTH:
        return None
    tiles = pairs * (_CONVERTED * d / kernels.speed_of_integers(device, pairs * d) + _TILE)
    sample = _sample(queries, rows, same_index)
    limit = limits(sample.distance2)
    best, cheapest = None, tiles
    for projection in _projections(rows, budget, (*_RANKS, 2 * _RANKS[-1]) if pairs * d > _LONG else _RANKS):
        shape = fitting(n, m, projection.columns, d, budget)
        if shape is None:
            continue
        kept = m * _kept(sample, projection, limit) + taken
        row_work = _SETTLED if projection.vectors is None else _TAKEN * d * torch.get_num_threads()
        work = pairs * (projection.columns + _ESTIMATE) + n * kept * row_work
        work += m * d * (0 if projection.vectors is None else projection.columns)
        if work < cheapest:
            best, cheapest = Plan(projection, shape), work
    return best


def _projections(rows: Bytes, budget: int, considered: tuple[int, ...]) -> list[Projection]:
    """All pixels, and the ranks of principal directions that a row and the budget have room for."""
    d = rows.shape[1]
    ranks = [rank for rank in considered if 4 * rank <= d and d * (8 * 2048 + 40 * rank) <= budget // 2]
    if not ranks or len(rows) < 2 * ranks[-1]:
        return [centred_pixels(rows)]
    longest = principal(rows, ranks[-1])
    return [Projection(longest.centre, None), *(longest.cut(rank) for rank in ranks)]


def _sample(queries: Bytes, rows: Bytes, same_index: bool) -> _Sample:
    """Evenly spaced queries against random rows; a pair of the same index is put out of reach where it is excluded."""
    chosen = np.linspace(0, len(queries) - 1, min(_QUERIES, len(queries))).astype(np.int64)
    found = np.random.default_rng(0).choice(len(rows), min(_ROWS, len(rows)), replace=False)
    sample = _Sample(queries[chosen], rows[found], np.empty((len(chosen), len(found)), np.int64))
    for block in blocks(sample.queries, sample.rows):
        sample.distance2[block.query, block.row] = block.distance2.numpy()
    if same_index:
        sample.distance2[chosen[:, None] == found] = np.iinfo(np.int64).max
    return sample


def _kept(sample: _Sample, projection: Projection, limit: Integers) -> float:
    """Share of the sampled pairs that the projection leaves to be taken."""
    left, right = projection.points(sample.queries), projection.points(sample.rows)
    product = left.coordinates @ right.coordinates.T
    bound2 = left.norm2[:, None] + right.norm2 - 2.0 * product
    length = math.sqrt(float(left.norm2.max())) + math.sqrt(float(right.norm2.max()))
    bound2 -= gamma(projection.columns + 4) * length**2
    return float((bound2 <= limit).mean())
