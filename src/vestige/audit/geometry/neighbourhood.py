"""Neighbourhoods of points in a reference, and how a dimension is read off a curve over their size.

Rows that repeat are collapsed: a neighbour is a distinct row, however often it stands there, since copies at one
distance say nothing of dimension. A query that the reference repeats (its own row left out once, where it has one) is
an atom. Distinct rows are kept in an order that follows from what they hold, and ties of distance follow that order, so
nothing depends on the order in which the reference comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from vestige.audit.geometry.distances import nearest_rows
from vestige.audit.geometry.estimate import Curve, Dimension, Doubles, Integers, Reading
from vestige.audit.geometry.estimator import Vectors
from vestige.errors import EmptySet, InvalidInput, ShapeMismatch

WITHIN = 2.0
"""Standard errors either side of an estimate that count as "within its error"."""

_DTYPES = ("uint8", "float32", "float64")


@dataclass(frozen=True, eq=False)
class Reference:
    """The distinct rows [u, d] of a reference in an order of their own, how often each stands there [u], and the
    place [m] among them of each row of the reference."""

    rows: Vectors
    counts: Integers
    place: Integers


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest distinct rows of each query that are not the query itself, nearest first.

    Parameters
    ----------
    distance : [q, k], positive and ascending, Euclidean in the units of the rows; inf where there are too few rows.
    index : [q, k] into the distinct rows; -1 where there are too few.
    copies : [q] rows of the reference that equal the query, its own left out. A query with copies is an atom.
    """

    distance: Doubles
    index: Integers
    copies: Integers


def prepared(queries: Vectors, reference: Vectors, *, same_index: bool) -> tuple[Vectors, Reference]:
    """Queries [q, d] and the distinct rows of a reference [m, d], of one dtype.

    Raises
    ------
    InvalidInput : not two arrays of uint8 or two of finite floats, both of two dimensions; with ``same_index`` a query
        that is not its row.
    ShapeMismatch : different d, or with ``same_index`` more queries than rows.
    EmptySet : no rows.
    """
    for name, array in (("queries", queries), ("reference", reference)):
        if array.ndim != 2 or not array.shape[1] or str(array.dtype) not in _DTYPES:
            raise InvalidInput(
                f"{name} is {array.dtype} of shape {array.shape}.",
                expected="uint8, float32 or float64 of shape [rows, features] with at least one feature.",
                remedy="flatten each point to one row.",
            )
        if array.dtype != np.uint8 and not np.isfinite(array).all():
            raise InvalidInput(
                f"{name} holds nan or infinity.", expected="finite features.", remedy="look for a fault in them."
            )
    if (queries.dtype == np.uint8) != (reference.dtype == np.uint8):
        raise InvalidInput(
            f"queries are {queries.dtype}, the reference is {reference.dtype}.",
            expected="uint8 in both or floats in both.",
            remedy="bring both to the same units.",
        )
    if queries.shape[1] != reference.shape[1] or (same_index and len(queries) > len(reference)):
        raise ShapeMismatch(
            f"queries of shape {queries.shape}, a reference of shape {reference.shape}.",
            expected="as many features in both" + (", and query i in row i." if same_index else "."),
            remedy="pass rows of the reference." if same_index else "extract both with the same extractor.",
        )
    own = reference[: len(queries)]
    if same_index and queries is not reference and not np.array_equal(queries, own):
        raise InvalidInput(
            f"query {int(np.argmax((queries != own).any(1)))} is not its own row of the reference.",
            expected="query i in row i.",
            remedy="pass the leading rows of the reference, or leave same_index out.",
        )
    if not len(reference):
        raise EmptySet("the reference is empty.", expected="at least one row.", remedy="check the data set.")
    dtype = np.result_type(queries, reference)
    return _plain(queries, dtype), distinct(_plain(reference, dtype))


def distinct(rows: Vectors) -> Reference:
    """Collapse the rows [m, d] that repeat."""
    whole = np.ascontiguousarray(rows)
    as_bytes = whole.view(np.uint8).reshape(len(whole), -1)
    _, first, place, counts = np.unique(_keys(as_bytes), return_index=True, return_inverse=True, return_counts=True)
    if not np.array_equal(as_bytes, as_bytes[first[place]]):  # two rows share a key
        _, first, place, counts = np.unique(
            as_bytes, axis=0, return_index=True, return_inverse=True, return_counts=True
        )
    return Reference(cast(Vectors, whole[first]), counts.astype(np.int64), place.ravel().astype(np.int64))


def _keys(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """A number [m] for each row of bytes; equal rows have equal ones, and others hardly ever."""
    words = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8))).view(np.uint64)
    odd = np.random.default_rng(0).integers(0, 1 << 63, words.shape[1], dtype=np.uint64) * 2 + 1
    words ^= words >> np.uint64(32)  # numbers often differ in their high bits alone
    words *= odd
    words ^= words >> np.uint64(29)
    return words.sum(axis=1, dtype=np.uint64)


def search(queries: Vectors, reference: Reference, k: int, *, same_index: bool, budget: int) -> Neighbours:
    """The k nearest distinct rows of each query; with ``same_index`` query i is row i, which is left out once."""
    distance, index = nearest_rows(queries, reference.rows, min(k + 1, len(reference.rows)), budget)
    equal = distance == 0
    copies = np.where(equal, reference.counts[index], 0).sum(1) - int(same_index)
    column = equal.sum(1)[:, None] + np.arange(k)
    there = column < distance.shape[1]
    column = np.minimum(column, distance.shape[1] - 1)
    return Neighbours(
        np.where(there, np.take_along_axis(distance, column, 1), np.inf),
        np.where(there, np.take_along_axis(index, column, 1), -1),
        copies,
    )


def offsets(queries: Vectors, reference: Reference, index: Integers) -> Doubles:
    """Neighbours [p, k, d] as seen from their queries [p, d]; what stands where ``index`` is -1 means nothing."""
    near = reference.rows[index].astype(np.float64, copy=False)
    return near - queries[:, None, :]


def check_neighbours(neighbours: tuple[int, ...], least: int) -> None:
    """Raise InvalidInput unless there is a number of neighbours and none is below ``least``."""
    if not neighbours or min(neighbours) < least:
        raise InvalidInput(
            f"neighbours = {neighbours}.", expected=f"numbers of at least {least}.", remedy="ask for more neighbours."
        )


def curve_over(numbers: Integers, found: Neighbours, dimension: Doubles, error: Doubles, ambient: int) -> Curve:
    """A curve over numbers of neighbours: 0 on atoms, NaN where there are too few distinct rows."""
    short = ~np.isfinite(found.distance[:, numbers - 1])
    atom = (found.copies > 0)[:, None]
    return Curve(
        numbers.astype(np.float64),
        np.where(atom, 0.0, np.where(short, np.nan, dimension)),
        np.where(atom, 0.0, np.where(short, np.nan, error)),
        ambient,
    )


def read_neighbours(curve: Curve) -> Dimension:
    """The dimension that a curve over numbers of neighbours shows.

    More neighbours have less noise and more bias from curvature, edges and density. Read is the largest number up to
    which all estimates, from the smallest number on, share a value within their errors (Lepski's rule): a plateau. A
    single number is read as given; where the first two already disagree, nothing is.
    """
    width = len(curve.scale)
    usable = np.isfinite(curve.dimension) & np.isfinite(curve.error)
    low = np.where(usable, curve.dimension - WITHIN * curve.error, -np.inf)
    high = np.where(usable, curve.dimension + WITHIN * curve.error, np.inf)
    level_to = np.logical_and.accumulate(
        np.maximum.accumulate(low, 1) <= np.minimum.accumulate(high, 1) + 1e-12, axis=1
    )
    held = usable & level_to
    last = np.where(held.any(1), width - 1 - np.argmax(held[:, ::-1], 1), -1)
    atom = (curve.dimension == 0).all(1)
    if width == 1:
        return read_at(curve, np.where(np.isfinite(curve.dimension[:, 0]), 0, -1), atom, Reading.GIVEN)
    last = np.where(held.sum(1) > 1, last, -1)
    return read_at(curve, np.where(atom, width - 1, last), atom, Reading.PLATEAU)


def read_at(curve: Curve, level: Integers, atom: npt.NDArray[np.bool_], found: Reading) -> Dimension:
    """The estimates at levels [n], NaN where one is -1, read as ``found`` but for atoms [n]."""
    each, none = np.arange(len(level)), level < 0
    return Dimension(
        np.where(none, np.nan, curve.dimension[each, level]),
        np.where(none, np.nan, curve.error[each, level]),
        level,
        tuple(Reading.ATOM if a else Reading.NONE if n else found for a, n in zip(atom, none, strict=True)),
        curve,
    )


def _plain(rows: Vectors, dtype: npt.DTypeLike) -> Vectors:
    return rows if rows.dtype == np.uint8 else rows.astype(dtype, copy=False) + np.zeros(1, dtype)  # -0 becomes 0
