"""Exact distances between points and rows, and the nearest rows, by whichever way is fastest.

Images are searched by :func:`vestige.nearest.topk`; vectors of few features by a k-d tree; float32 of many by
:func:`vestige.nearest.nearest_embeddings` and float64 of many by products, as there. All give the same: distances as
subtraction in float64 gives them, and among equals the lower index first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from vestige.audit.geometry.estimate import Doubles, Integers
from vestige.audit.geometry.estimator import Vectors
from vestige.nearest import blocks, nearest_embeddings, topk

_LOW = 6  # features up to which a k-d tree is faster than products
_CELLS = 1 << 18  # distances taken at a time; more leave the cache
_LEAST_HEIGHT = 32  # queries below which products are slow
_CELL = 16  # bytes that a distance costs while the nearest are picked
_TAKEN = 1 << 17  # numbers of candidates gathered at a time
_GROUPS = 8  # groups of rows for each neighbour, whose minima bound the k-th distance
_UNIT, _UNIT32 = 2.0**-53, 2.0**-24


@dataclass(frozen=True, eq=False)
class Field:
    """Rows made ready for :func:`strips`; floats are seen from their mean, in float64."""

    rows: Vectors
    centre: Doubles
    seen: Doubles
    norm2: Doubles

    @classmethod
    def of(cls, rows: Vectors) -> Field:
        """Centre them, unless they are uint8."""
        if rows.dtype == np.uint8:
            return cls(rows, np.zeros(0), np.zeros((0, 0)), np.zeros(0))
        centre = rows.mean(0, dtype=np.float64)
        seen = rows - centre
        return cls(rows, centre, seen, np.einsum("nd,nd->n", seen, seen))


def strips(queries: Vectors, field: Field, *, per_cell: int, budget: int) -> Iterator[tuple[slice, Doubles, Doubles]]:
    """Squared distances [h, m] of a slice of queries and all rows, and how far off they can be [h].

    Those of uint8 are exact. Of floats ``|q|^2 + |x|^2 - 2 q x``, with both seen from the rows' mean, is off by at most
    ``(2 gamma(d + 4) + 8 u) (|q| + |x|)^2``, gamma(n) = n u / (1 - n u), u = 2**-53.
    """
    m, d = field.rows.shape
    height = max(1, min(max(_CELLS // m, _LEAST_HEIGHT), budget // (per_cell * m)))
    terms = (d + 4) * _UNIT
    factor = 2 * terms / (1 - terms) + 8 * _UNIT
    for top in range(0, len(queries), height):
        part = queries[top : top + height]
        place = slice(top, top + len(part))
        if part.dtype == np.uint8:
            tiles = groupby(blocks(_pixels(part), _pixels(field.rows), budget=budget), key=attrgetter("query"))
            whole = [np.concatenate([tile.distance2.numpy() for tile in strip], 1) for _, strip in tiles]
            yield place, np.concatenate(whole).astype(np.float64), np.zeros(len(part))
            continue
        left = part - field.centre
        own2 = np.einsum("nd,nd->n", left, left)
        left *= -2
        distance2 = left @ field.seen.T
        distance2 += field.norm2
        distance2 += own2[:, None]
        yield place, distance2, factor * (np.sqrt(own2) + np.sqrt(field.norm2.max())) ** 2


def nearest_rows(queries: Vectors, rows: Vectors, k: int, budget: int) -> tuple[Doubles, Integers]:
    """Distances and indices [q, k], nearest first, the lower index first among equals."""
    if rows.dtype == np.uint8:
        found = topk(_pixels(queries), _pixels(rows), k, budget=budget)
        return np.sqrt(found.distance2.astype(np.float64)), found.index
    if rows.shape[1] <= _LOW:
        return _by_tree(queries, rows, k)
    if rows.dtype == np.float32:
        whole = np.asarray(rows, np.float32)
        near = nearest_embeddings(np.asarray(queries, np.float32), whole, k, exact_up_to=len(rows), budget=budget)
        return near.distance, near.index
    return _by_products(queries, rows, k, budget)


def subtracted(queries: Vectors, rows: Vectors) -> Doubles:
    """Squared distances [p] of pairs in float64, by subtraction."""
    difference = np.subtract(queries, rows, dtype=np.float64)
    return np.einsum("pd,pd->p", difference, difference)


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parts(number: int, each: int, budget: int, work: Callable[[slice], None], threads: int | None = None) -> None:
    """Do the work on slices of ``number`` queries, ``each`` bytes a query, in threads that share the budget."""
    threads = threads or processors()
    step = max(1, min(budget // (threads * max(each, 1)), -(-number // threads)))
    parts = [slice(top, min(top + step, number)) for top in range(0, number, step)]
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, parts):
            pass


def _by_tree(queries: Vectors, rows: Vectors, k: int) -> tuple[Doubles, Integers]:
    width = min(k + 1, len(rows))
    tree: Any = KDTree(rows)
    distance, index = (np.asarray(a) for a in tree.query(queries, k=np.arange(1, width + 1), workers=-1))
    index = index.astype(np.int64)
    # The tree gives equals in any order, and any of them where more are equal than fit.
    for query in np.flatnonzero((np.diff(distance, axis=1) <= 1e-12 * distance[:, 1:]).any(1)):
        reach = distance[query, k - 1] * (1 + 1e-12)
        ball = np.array(tree.query_ball_point(queries[query], reach, return_sorted=True), np.int64)
        exact = np.sqrt(subtracted(queries[query : query + 1], rows[ball]))
        order = np.argsort(exact, kind="stable")[:k]
        distance[query, :k], index[query, :k] = exact[order], ball[order]
    return distance[:, :k], index[:, :k]


def _by_products(queries: Vectors, rows: Vectors, k: int, budget: int) -> tuple[Doubles, Integers]:
    """Screened by ``|x|^2 - 2 q x`` in float32 with everything seen from the mean and no longer than 1, then exact.

    An estimate is off by at most ``(2 gamma(d + 8) + 8 u) (|q| + |x|)^2``, u = 2**-24, the rounding of what is
    multiplied included. The k nearest have estimates of at most the k-th smallest plus twice that.
    """
    distance2, index = np.empty((len(queries), k)), np.empty((len(queries), k), np.int64)
    centre = rows.mean(0, dtype=np.float64)
    left, right = queries - centre, rows - centre
    longest = max(float(np.einsum("nd,nd->n", side, side).max(initial=0)) for side in (left, right))
    scale = np.sqrt(longest) or 1.0
    left /= scale
    right /= scale
    norm2, length = np.einsum("nd,nd->n", right, right), np.sqrt(np.einsum("nd,nd->n", left, left))
    terms = (rows.shape[1] + 8) * _UNIT32
    error = (2 * terms / (1 - terms) + 8 * _UNIT32) * (length + np.sqrt(norm2.max())) ** 2 + 1e-37
    multiplied = np.concatenate((-2 * left, np.ones((len(left), 1))), 1).astype(np.float32)
    across = np.concatenate((right, norm2[:, None]), 1).astype(np.float32).T
    threads = processors()
    height = max(1, min(max(_CELLS // len(rows), _LEAST_HEIGHT), budget // (threads * _CELL * len(rows))))

    def pick(some: slice) -> None:
        for top in range(some.start, some.stop, height):
            part = slice(top, min(top + height, some.stop))
            estimate = multiplied[part] @ across
            limit = _bound(estimate, k) + 2 * error[part]
            limit = np.nextafter(limit.astype(np.float32), np.float32(np.inf))
            query, row = np.divmod(np.flatnonzero(estimate <= limit[:, None]), len(rows))
            distance2[part], index[part] = _nearest_of(queries[part], rows, query, row, k)

    in_parts(len(queries), 16 * k, budget, pick)
    return np.sqrt(distance2), index


def _nearest_of(queries: Vectors, rows: Vectors, query: Integers, row: Integers, k: int) -> tuple[Doubles, Integers]:
    """The k nearest of the candidate pairs of each query, which come in the order of queries and rows."""
    counts = np.bincount(query, minlength=len(queries))
    place = np.arange(len(query)) - (np.cumsum(counts) - counts)[query]
    names = np.full((len(queries), int(counts.max())), -1, np.int64)
    names[query, place] = row
    table = np.empty(names.shape)
    step = max(1, _TAKEN // (names.shape[1] * rows.shape[1]))
    for top in range(0, len(queries), step):
        part = slice(top, top + step)
        near = rows.take(names[part].ravel(), axis=0).reshape(*names[part].shape, -1)
        near -= queries[part, None, :]
        np.einsum("nkd,nkd->nk", near, near, out=table[part])
    table[names < 0] = np.inf
    order = np.argsort(table, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(table, order, 1), np.take_along_axis(names, order, 1)


def _bound(estimate: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.float32]:
    """At least the k-th smallest of each row: the k-th smallest of the minima of groups, which are fewer."""
    groups = _GROUPS * k
    size = estimate.shape[1] // groups
    if size > 1:
        estimate = estimate[:, : size * groups].reshape(len(estimate), size, groups).min(1)
    return np.partition(estimate, k - 1, axis=1)[:, k - 1]


def _pixels(rows: Vectors) -> npt.NDArray[np.uint8]:
    return np.asarray(rows, np.uint8)
