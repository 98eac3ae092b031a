"""Arrays and settings checked once, where they enter a metric."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from vestige.errors import EmptySet, InvalidInput

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]
Features = npt.NDArray[np.float32] | npt.NDArray[np.float64]
"""Rows of features in the precision in which they came."""

_LARGEST = 1e150
"""Squares of larger features overflow."""


def _finite(values: npt.ArrayLike, name: str, shape: str, dimensions: int) -> npt.NDArray[Any]:
    raw = np.asarray(values)
    if raw.dtype.kind not in "fiub":
        raise InvalidInput(
            f"{name} has dtype {raw.dtype}.", expected="real numbers.", remedy="convert it to a floating point array."
        )
    if raw.ndim != dimensions:
        raise InvalidInput(
            f"{name} has shape {raw.shape}.", expected=f"shape {shape}.", remedy="reshape it before calling the metric."
        )
    bad = raw.size - int(np.isfinite(raw).sum())
    if bad:
        raise InvalidInput(
            f"{name} holds {bad} of {raw.size} values that are NaN or infinite.",
            expected="finite numbers.",
            remedy="drop those rows, or clip infinite scores to a finite value of the same order.",
        )
    return raw


def vector(values: npt.ArrayLike, name: str) -> FloatArray:
    """Return ``values`` as a float64 array [n], n >= 1, all finite.

    Raises InvalidInput (wrong shape, NaN, infinity) or EmptySet.
    """
    checked = np.ascontiguousarray(_finite(values, name, "[n]", 1), dtype=np.float64)
    if checked.size == 0:
        raise EmptySet(f"{name} is empty.", expected="at least one value.", remedy="give the metric more rows.")
    return checked


def matrix(values: npt.ArrayLike, name: str, rows: int = 1) -> FloatArray:
    """Return ``values`` as a contiguous float64 array [n, d], n >= ``rows``, d >= 1, all finite.

    Raises InvalidInput (wrong shape, NaN, infinity, no column) or EmptySet (too few rows).
    """
    return np.ascontiguousarray(_table(values, name, rows), dtype=np.float64)


def features(values: npt.ArrayLike, name: str, rows: int = 1) -> Features:
    """Return ``values`` as a contiguous array [n, d], n >= ``rows``, d >= 1, all finite; float32 stays float32.

    Raises InvalidInput (wrong shape, NaN, infinity, no column, numbers above 1e150) or EmptySet (too few rows).
    """
    raw = _table(values, name, rows)
    if raw.size and max(float(raw.max()), -float(raw.min())) > _LARGEST:
        raise InvalidInput(
            f"{name} holds numbers above {_LARGEST:g}.", expected="numbers that can be squared.", remedy="scale it."
        )
    single = raw.dtype.kind == "f" and raw.dtype.itemsize <= 4
    return np.ascontiguousarray(raw, dtype=np.float32) if single else np.ascontiguousarray(raw, dtype=np.float64)


def _table(values: npt.ArrayLike, name: str, rows: int) -> npt.NDArray[Any]:
    checked = _finite(values, name, "[n, d]", 2)
    if checked.shape[1] == 0:
        raise InvalidInput(f"{name} has no columns.", expected="shape [n, d], d >= 1.", remedy="check the features.")
    if checked.shape[0] < rows:
        raise EmptySet(
            f"{name} has {checked.shape[0]} rows.",
            expected=f"at least {rows} rows.",
            remedy="give the metric more rows.",
        )
    return checked


def blocks(rows: int, step: int) -> Iterator[slice]:
    """Consecutive slices of at most ``step`` of so many rows."""
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def same_width(first: Features, second: Features, names: str) -> None:
    """Raise InvalidInput unless both arrays have the same last dimension."""
    if first.shape[-1] != second.shape[-1]:
        raise InvalidInput(
            f"{names} have {first.shape[-1]} and {second.shape[-1]} columns.",
            expected="the same number of columns.",
            remedy="compute both with the same feature extractor.",
        )


def count(value: int, name: str, minimum: int = 0, maximum: int | None = None) -> int:
    """Return ``value`` as an int within [minimum, maximum], or raise InvalidInput."""
    whole = int(value)
    if whole != value or whole < minimum or (maximum is not None and whole > maximum):
        upper = "" if maximum is None else f" and at most {maximum}"
        raise InvalidInput(
            f"{name} is {value}.", expected=f"a whole number, at least {minimum}{upper}.", remedy="check the counts."
        )
    return whole


def open_unit(value: float, name: str) -> float:
    """Return ``value`` if it lies strictly between 0 and 1, or raise InvalidInput."""
    if not 0.0 < value < 1.0:
        raise InvalidInput(f"{name} is {value}.", expected="a number strictly between 0 and 1.", remedy="use 0.95.")
    return float(value)
