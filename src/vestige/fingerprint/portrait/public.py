"""Numbers that everybody can make again: fixed random directions from a public seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from vestige.errors import InvalidInput
from vestige.randomness import Stream, generator

Doubles = npt.NDArray[np.float64]

LONGEST = 1 << 16
"""Entries of a vector."""


def gaussian(seed: int, rows: int, columns: int, draw: int) -> Doubles:
    """Standard normal numbers [rows, columns] from the raw bits of Philox, which no release of numpy changes."""
    raw = generator(seed, Stream.PORTRAIT, rows, draw).bit_generator.random_raw(rows * columns)
    return ndtri(((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53).reshape(rows, columns)


def orthonormal(seed: int, rows: int, columns: int, draw: int) -> Doubles:
    """A fixed random matrix [rows, columns] whose rows, or columns if they are fewer, are orthonormal.

    It is the orthogonal factor of a Gaussian matrix with the signs that make the other factor's diagonal positive,
    so that it is the only one and every linear algebra library finds it.
    """
    tall = gaussian(seed, max(rows, columns), min(rows, columns), draw)
    basis, upper = np.linalg.qr(tall)
    basis = basis * np.sign(np.diag(upper))
    return basis if rows >= columns else np.ascontiguousarray(basis.T)


def directed(vector: npt.ArrayLike) -> Doubles:
    """A fingerprint vector [d] at mean square 1 in float64: its direction is all that portrait and code depend on.

    Raises
    ------
    InvalidInput : it is not one row of 2 to 65,536 finite numbers, or all of them are 0.
    """
    values = np.asarray(vector)
    numbers = values.dtype.kind in "fiu" and values.ndim == 1 and 2 <= values.size <= LONGEST
    if not numbers or not np.isfinite(values).all() or not values.any():
        raise InvalidInput(
            f"The fingerprint vector is {values.dtype} of shape {values.shape}, or holds NaN, infinity or only zeros.",
            expected=f"one row of 2 to {LONGEST:,} finite numbers.",
            remedy="pass the vector of a fingerprint card.",
        )
    scaled = values.astype(np.float64) / np.abs(values).max()
    return scaled / np.sqrt(np.mean(scaled**2))
