"""Bit-exact squared distances between uint8 rows, one tile at a time.

Subtracting 128 leaves a distance unchanged and puts every pixel in [-128, 127], where products over a bounded number
of columns are exact whatever the order of summation; :mod:`vestige.nearest.kernels` has the bounds. Column chunks are
added up as integers, so ``|a|^2 + |b|^2 - 2ab`` cancels without loss, unlike the same expansion in floating point. The
full matrix never exists: tiles are sized so that one tile and what a reduction makes of it stay within a budget of
bytes.
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
from vestige.nearest import kernels
from vestige.nearest.kernels import Kernel

BUDGET = 1 << 30
"""Default bound, in bytes, on the working memory of one call. Arguments and results are not counted."""

WHITE2 = 255**2
"""Largest squared difference of two pixels."""

_TILE = 2048  # larger tiles leave the cache and are no faster
_CELL = 96  # bytes a cell costs at the worst moment of any reduction: a tile in which every pair is a hit
_ENTRY = 12  # bytes a pixel of a strip costs while it is centred: uint8 copy, float32 or int8 twice, its square
_CHUNK = 512  # 512 * 255 * 128 < 2**24: products of pixels and centred pixels that are exact in float32
_GROUP = 8  # pairs of one query from which a product is cheaper than subtraction
_PART = 1 << 21  # pixels gathered at a time for the distances of pairs; more leave the cache

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
    kernel = kernels.fastest(torch.device(device), n * m * d)
    if budget < _CELL + 2 * _ENTRY * min(d, kernel.columns) + per_query:
        kernel = kernels.FLOAT32
    height, width = _tile_shape(n, m, _ENTRY * min(d, kernel.columns), per_query, budget)
    for top in range(0, n, height):
        query = slice(top, min(top + height, n))
        for left in range(0, m, width):
            row = slice(left, min(left + width, m))
            if upper and row.stop - 1 <= query.start:
                continue
            distance2 = _tile(queries[query], rows[row], torch.device(device), kernel)
            if exclude_same_index:
                distance2.diagonal(query.start - row.start).fill_(WHITE2 * d + 1)
            yield Block(query, row, distance2)


def distance2_of_pairs(
    queries: Bytes,
    rows: Bytes,
    pairs: npt.NDArray[np.int64],
    *,
    budget: int = BUDGET,
) -> npt.NDArray[np.int64]:
    """Exact squared distance [p] of ``queries[i]`` and ``rows[j]`` for each (i, j) of ``pairs`` [p, 2].

    Pairs in which the same query stands many times in a row are cheapest.
    """
    check(queries, rows)
    d = queries.shape[1]
    columns = min(d, 1024)
    if budget < columns * 2 * _ENTRY:
        raise _too_small(budget, columns * 2 * _ENTRY)
    total = np.empty(len(pairs), np.int64)
    ends = np.flatnonzero(np.diff(pairs[:, 0], append=-1)) + 1
    if len(pairs) < _GROUP * len(ends) or budget < d * 2 * _ENTRY:
        batch = max(1, min(_PART, budget // (2 * _ENTRY)) // columns)
        for top in range(0, len(pairs), batch):
            part = slice(top, top + batch)
            total[part] = _subtracted(queries, rows, pairs[part], columns)
        return total
    start = 0
    for end in ends.tolist():
        found = pairs[start:end, 1]
        total[start:end] = distances_from(queries[pairs[start, 0]], rows, found, budget=budget)
        start = end
    return total


def distances_from(
    query: Bytes,
    rows: Bytes,
    index: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64] | None = None,
    *,
    budget: int = BUDGET,
) -> npt.NDArray[np.int64]:
    """Exact squared distances [p] of one uint8 query [d] and ``rows[index]``.

    ``offsets`` [m], the :func:`row_offsets` of the rows, save time.
    """
    total = np.empty(len(index), np.int64)
    pixels = query.astype(np.float32)
    batch = max(1, min(_PART, budget // (2 * _ENTRY)) // len(query))
    for top in range(0, len(index), batch):
        found = index[top : top + batch]
        near = rows.take(found, axis=0).astype(np.float32)
        total[top : top + batch] = _expanded(pixels, near, _offsets(near) if offsets is None else offsets[found])
    return total


def row_offsets(pixels: Bytes, *, budget: int = BUDGET) -> npt.NDArray[np.int64]:
    """Sum [n] of ``x (x - 256)`` over each uint8 row [n, d]: the part of a squared distance that is the row's own.

    ``|q - x|^2 = |q|^2 + sum x (x - 256) - 2 (q - 128) x``, and products of pixels with centred pixels are shorter than
    those of pixels.
    """
    n, d = pixels.shape
    batch = max(1, min(_PART, budget // _ENTRY) // d)
    parts = [_offsets(pixels[top : top + batch].astype(np.float32)) for top in range(0, n, batch)]
    return np.concatenate([np.empty(0, np.int64), *parts])


def _subtracted(queries: Bytes, rows: Bytes, pairs: npt.NDArray[np.int64], columns: int) -> npt.NDArray[np.int64]:
    total = np.zeros(len(pairs), np.int64)
    for left in range(0, queries.shape[1], columns):
        chunk = slice(left, left + columns)
        difference = queries[pairs[:, 0], chunk].astype(np.int32)
        difference -= rows[pairs[:, 1], chunk]
        total += np.einsum("pc,pc->p", difference, difference)  # at most 1024 * 255**2, within int32
    return total


def _expanded(
    query: npt.NDArray[np.float32], near: npt.NDArray[np.float32], offsets: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Exact squared distances [p] of the pixels of a query [d] and rows [p, d] of offsets [p]."""
    centred = query - 128
    product = np.zeros(len(near))
    for left in range(0, len(query), _CHUNK):
        product += near[:, left : left + _CHUNK] @ centred[left : left + _CHUNK]
    return offsets + int(np.square(query, dtype=np.float64).sum()) - 2 * product.astype(np.int64)


def _offsets(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    total = np.zeros(len(pixels))
    shifted = pixels - 256
    for left in range(0, pixels.shape[1], _CHUNK):
        total += np.einsum("pc,pc->p", pixels[:, left : left + _CHUNK], shifted[:, left : left + _CHUNK])
    return total.astype(np.int64)


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


def _tile_shape(n: int, m: int, strip: int, per_query: int, budget: int) -> tuple[int, int]:
    """Queries and rows of a tile that, with its two strips of pixels (bytes a row), costs at most ``budget`` bytes."""
    linear = 2 * strip + per_query
    if budget < _CELL + linear:
        raise _too_small(budget, _CELL + linear)
    side = (math.isqrt(linear**2 + 4 * _CELL * budget) - linear) // (2 * _CELL)
    height = min(max(side, 1), n, _TILE)
    width = (budget - height * (strip + per_query)) // (height * _CELL + strip)
    return height, min(width, m, _TILE**2 // height)


def _too_small(budget: int, least: int) -> InvalidInput:
    return InvalidInput(f"a budget of {budget} bytes.", expected=f"at least {least}.", remedy="raise the budget.")


def _tile(queries: Bytes, rows: Bytes, device: torch.device, kernel: Kernel) -> torch.Tensor:
    d = queries.shape[1]
    dtype = torch.int32 if WHITE2 * d + 1 <= torch.iinfo(torch.int32).max else torch.int64
    inner = torch.zeros((len(queries), len(rows)), dtype=dtype, device=device)
    norms = [torch.zeros(len(part), dtype=dtype, device=device) for part in (queries, rows)]
    with torch.no_grad(), full_precision(device):
        for start in range(0, d, kernel.columns):
            left, right = (_centred(a[:, start : start + kernel.columns], device, kernel) for a in (queries, rows))
            inner.add_(kernel.multiply(left, right).to(dtype))
            for norm, part in zip(norms, (left, right), strict=True):
                norm.add_(_norm2(part).to(dtype))
        return inner.mul_(-2).add_(norms[0][:, None]).add_(norms[1])


def _centred(pixels: Bytes, device: torch.device, kernel: Kernel) -> torch.Tensor:
    if kernel.dtype == torch.int8:
        return torch.from_numpy((pixels ^ 128).view(np.int8)).to(device)
    return torch.from_numpy(np.array(pixels)).to(device).to(torch.float32).sub_(128)


def _norm2(centred: torch.Tensor) -> torch.Tensor:
    if centred.dtype == torch.int8:
        return centred.to(torch.int32).square_().sum(1, dtype=torch.int32)
    return centred.square().sum(1)


@contextmanager
def full_precision(device: torch.device) -> Generator[None, None, None]:
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
