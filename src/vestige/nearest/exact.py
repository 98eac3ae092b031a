"""Bit-exact squared distances between uint8 rows, one tile at a time.

Subtracting 128 leaves a distance unchanged and puts every pixel in [-128, 127]. A float32 product over at most
1024 such columns is then exact whatever the order of summation: each partial sum is an integer of magnitude at most
``1024 * 128 * 128 = 2**24``, and float32 holds all of those. Column chunks are added up as integers, so
``|a|^2 + |b|^2 - 2ab`` cancels without loss, unlike the same expansion in floating point. The full matrix never
exists: tiles are sized so that one tile and what a reduction makes of it stay within a budget of bytes.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from vestige.errors import EmptySet, InvalidInput, ShapeMismatch

BUDGET = 1 << 30
"""Default bound, in bytes, on the working memory of one call. Arguments and results are not counted."""

WHITE2 = 255**2
"""Largest squared difference of two pixels."""

_COLUMNS = 1024  # 1024 * 128**2 == 2**24, the last integer up to which float32 has no gaps
_TILE = 2048  # larger tiles leave the cache and are no faster
_CELL = 96  # bytes a cell costs at the worst moment of any reduction: a tile in which every pair is a hit
_ENTRY = 12  # bytes a pixel of a strip costs while it is centred: uint8 copy, float32, its square

Bytes = npt.NDArray[np.uint8]


class Block(NamedTuple):
    """One tile: squared distances ``distance2[i, j]`` of ``queries[query][i]`` and ``rows[row][j]``.

    ``distance2`` is int32 where ``255**2 * d`` fits, int64 elsewhere, and belongs to the receiver.
    """

    query: slice
    row: slice
    distance2: torch.Tensor


def blocks(
    queries: Bytes,
    rows: Bytes,
    *,
    exclude_same_index: bool = False,
    upper: bool = False,
    per_query: int = 0,
    budget: int = BUDGET,
    device: str = "cpu",
) -> Iterator[Block]:
    """Exact squared distances between uint8 ``queries`` [n, d] and ``rows`` [m, d], in tiles.

    Tiles come row-major: all of one slice of queries before the next slice.

    Parameters
    ----------
    exclude_same_index : put the pair (i, i) at ``255**2 * d + 1``, farther than any pair can be.
    upper : leave out the tiles that hold no pair i < j.
    per_query : bytes the caller keeps for each query of the current slice; they count towards ``budget``.
    budget : bytes of working memory.
    device : torch device that multiplies.

    Raises
    ------
    InvalidInput : not uint8 [n, d], or a budget that one pair does not fit in.
    ShapeMismatch : different d, or different n and m where (i, i) is to be excluded.
    EmptySet : no rows.
    """
    check(queries, rows)
    if exclude_same_index and len(queries) != len(rows):
        raise ShapeMismatch(
            f"{len(queries)} queries and {len(rows)} rows.",
            expected="as many queries as rows when equal indices are excluded.",
            remedy="pass the same array twice.",
        )
    n, m, d = len(queries), len(rows), queries.shape[1]
    if not n:
        return
    height, width = _tile_shape(n, m, d, per_query, budget)
    for top in range(0, n, height):
        query = slice(top, min(top + height, n))
        for left in range(0, m, width):
            row = slice(left, min(left + width, m))
            if upper and row.stop - 1 <= query.start:
                continue
            distance2 = _tile(queries[query], rows[row], torch.device(device))
            if exclude_same_index:
                distance2.diagonal(query.start - row.start).fill_(WHITE2 * d + 1)
            yield Block(query, row, distance2)


def distance2_of_pairs(
    queries: Bytes, rows: Bytes, pairs: npt.NDArray[np.int64], *, budget: int = BUDGET
) -> npt.NDArray[np.int64]:
    """Exact squared distance [p] of ``queries[i]`` and ``rows[j]`` for each (i, j) of ``pairs`` [p, 2]."""
    check(queries, rows)
    columns = min(queries.shape[1], _COLUMNS)
    batch = budget // (columns * 2 * _ENTRY)
    if batch < 1:
        raise _too_small(budget, columns * 2 * _ENTRY)
    total = np.zeros(len(pairs), np.int64)
    for top in range(0, len(pairs), batch):
        i, j = pairs[top : top + batch, 0], pairs[top : top + batch, 1]
        for left in range(0, queries.shape[1], columns):
            chunk = slice(left, left + columns)
            difference = queries[i, chunk].astype(np.int32) - rows[j, chunk]
            total[top : top + batch] += np.square(difference).sum(1, dtype=np.int64)
    return total


def check(queries: Bytes, rows: Bytes) -> None:
    """Raise unless ``queries`` is uint8 [n, d] and ``rows`` uint8 [m, d] with m and d at least one."""
    for name, array in (("queries", queries), ("rows", rows)):
        if array.dtype != np.uint8 or array.ndim != 2 or not array.shape[1]:
            raise InvalidInput(
                f"{name} is {array.dtype} of shape {array.shape}.",
                expected="uint8 of shape [rows, pixels] with at least one pixel.",
                remedy="keep images as uint8 and flatten each to one row.",
            )
    if queries.shape[1] != rows.shape[1]:
        raise ShapeMismatch(
            f"queries have {queries.shape[1]} pixels, rows {rows.shape[1]}.",
            expected="the same number of pixels in both.",
            remedy="resize one set to the size of the other.",
        )
    if not len(rows):
        raise EmptySet("rows is empty.", expected="at least one row to compare with.", remedy="check the data set.")


def _tile_shape(n: int, m: int, d: int, per_query: int, budget: int) -> tuple[int, int]:
    """Queries and rows of a tile that, with its two strips of pixels, costs at most ``budget`` bytes."""
    strip = _ENTRY * min(d, _COLUMNS)
    linear = 2 * strip + per_query
    if budget < _CELL + linear:
        raise _too_small(budget, _CELL + linear)
    side = (math.isqrt(linear**2 + 4 * _CELL * budget) - linear) // (2 * _CELL)
    height = min(max(side, 1), n, _TILE)
    width = (budget - height * (strip + per_query)) // (height * _CELL + strip)
    return height, min(width, m, _TILE**2 // height)


def _too_small(budget: int, least: int) -> InvalidInput:
    return InvalidInput(f"a budget of {budget} bytes.", expected=f"at least {least}.", remedy="raise the budget.")


def _tile(queries: Bytes, rows: Bytes, device: torch.device) -> torch.Tensor:
    d = queries.shape[1]
    dtype = torch.int32 if WHITE2 * d + 1 <= torch.iinfo(torch.int32).max else torch.int64
    total = torch.zeros((len(queries), len(rows)), dtype=dtype, device=device)
    with torch.no_grad(), _full_precision(device):
        for start in range(0, d, _COLUMNS):
            left, right = (_centred(array[:, start : start + _COLUMNS], device) for array in (queries, rows))
            total.sub_(_multiply(left, right).to(dtype), alpha=2)
            total.add_(_norm2(left).to(dtype)[:, None]).add_(_norm2(right).to(dtype))
    return total


def _centred(pixels: Bytes, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.array(pixels)).to(device).to(torch.float32).sub_(128)


def _norm2(centred: torch.Tensor) -> torch.Tensor:
    return centred.square().sum(1)


def _multiply(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Exact inner products [t, u] of centred pixels [t, c] and [u, c], c at most 1024.

    The one place that multiplies: a device with fast int8 products may take them here with int32 sums instead.
    """
    return left @ right.T


@contextmanager
def _full_precision(device: torch.device) -> Generator[None, None, None]:
    """Turn off autocast and reduced-precision products for the enclosed tile, whatever the caller has set."""
    backends: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    with torch.autocast(device.type, enabled=False):
        if not all(hasattr(backend, "fp32_precision") for backend in backends):  # torch before 2.9
            precision = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
            try:
                yield
            finally:
                torch.set_float32_matmul_precision(precision)
            return
        before = [backend.fp32_precision for backend in backends]
        try:
            for backend in backends:
                backend.fp32_precision = "ieee"
            yield
        finally:
            for backend, precision in zip(backends, before, strict=True):
                backend.fp32_precision = precision
