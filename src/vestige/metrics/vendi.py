"""The Vendi score: the number of different rows that a set amounts to."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from vestige.errors import InvalidInput
from vestige.metrics.arrays import Features, FloatArray, IndexArray, blocks, features
from vestige.metrics.interval import Interval
from vestige.metrics.jackknife import GROUPS, around, dealt

_BLOCK = 4096


def vendi_score(
    rows: npt.ArrayLike, *, order: float = 1.0, seed: int = 0, groups: int = GROUPS, confidence: float = 0.95
) -> Interval:
    """Return the Vendi score of ``rows`` [n, d], n >= 2, in [1, min(n, d)], with cosine similarity.

    exp of the Rényi entropy of ``order`` q >= 0 (1 is Shannon's, infinity looks at the largest alone) of the
    eigenvalues of K / n, K_ij the cosine of rows i and j. Those of the d x d second moment of the rows at length one
    are the same, and are taken where d < n. The score grows with n: compare only sets of equal n. The interval is
    Student's with a jackknife over ``seed``-dealt groups of rows.
    Source: Friedman and Dieng 2023, arXiv 2210.02410; Pasarkar and Dieng 2023, arXiv 2310.12952.
    Raises EmptySet or InvalidInput (a negative order; a row of zeros, which has no direction).
    """
    checked = features(rows, "features", rows=2)
    if not order >= 0:
        raise InvalidInput(f"order is {order}.", expected="0 or more, or infinity.", remedy="use 1.")
    empty = int(np.count_nonzero(~checked.any(axis=1)))
    if empty:
        raise InvalidInput(
            f"{empty} of {len(checked)} rows of features are zero.",
            expected="rows that have a direction.",
            remedy="leave these rows out, or use features in which nothing is empty.",
        )
    n, d = checked.shape
    moments = _moments(checked, dealt(n, seed, groups))
    values = np.array([_diversity(matrix, order) for matrix in moments])
    return around(float(values[0]), 0.0, values[1:], n, confidence, (1.0, float(min(n, d))))


def _moments(rows: Features, groups: IndexArray) -> Iterator[FloatArray]:
    """Matrix with the eigenvalues of all rows, then of those without each group."""
    names = range(int(groups.max()) + 1)
    if rows.shape[1] < len(rows):
        total = _moment(rows)
        yield total
        yield from (total - _moment(rows[groups == name]) for name in names)
        return
    unit = _unit(rows)
    cosines = unit @ unit.T
    yield cosines
    for name in names:
        kept = groups != name
        yield cosines[np.ix_(kept, kept)]


def _moment(rows: Features) -> FloatArray:
    """Sum of outer products [d, d] of the rows at length one."""
    total = np.zeros((rows.shape[1], rows.shape[1]))
    for block in blocks(len(rows), _BLOCK):
        unit = _unit(rows[block])
        total += unit.T @ unit
    return total


def _unit(rows: Features) -> FloatArray:
    # Scaled by the largest entry first, so that squares neither vanish nor overflow.
    wide = rows.astype(np.float64)
    wide /= np.abs(wide).max(axis=1, keepdims=True)
    return wide / np.sqrt(np.sum(wide * wide, axis=1, keepdims=True))


def _diversity(matrix: FloatArray, order: float) -> float:
    """exp of the Rényi entropy of the eigenvalues; those within rounding of zero are zero."""
    spectrum = np.asarray(np.linalg.eigvalsh(matrix), dtype=np.float64)
    share = np.where(spectrum > spectrum.size * np.finfo(np.float64).eps * spectrum[-1], spectrum, 0.0)
    share /= share.sum()
    if order == 1:
        return float(np.exp(entr(share).sum()))
    if math.isinf(order):
        return 1.0 / float(share.max())
    return float(np.sum(share[share > 0] ** order) ** (1.0 / (1.0 - order)))
