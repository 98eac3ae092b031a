"""Exact sketches of integer terms, and the similarity that two of them show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

import numpy as np
import numpy.typing as npt

from vestige.errors import InvalidInput, Unsupported
from vestige.fingerprint.proof.challenge import Challenge
from vestige.fingerprint.proof.integers import IntegerModel, TermName
from vestige.metrics.interval import Interval, mean_interval

Int64 = npt.NDArray[np.int64]

_EXACT = 1 << 53


@dataclass(frozen=True)
class IntegerSketch:
    """``values[t][j] = a_j^T X L_t^T R_t X^T b_j`` of every term t, under one challenge."""

    terms: tuple[TermName, ...]
    values: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Entries a term."""
        return len(self.values[0])


def exact_product(first: npt.NDArray[np.signedinteger], second: npt.NDArray[np.signedinteger]) -> Int64:
    """``first @ second`` by floating-point arithmetic that cannot round, since every sum stays below 2**53.

    Raises
    ------
    Unsupported : it could exceed that.
    """
    bound = [max(int(np.max(side, initial=0)), -int(np.min(side, initial=0))) for side in (first, second)]
    if bound[0] * bound[1] * first.shape[-1] >= _EXACT:
        raise Unsupported(
            f"A product of integers up to {bound[0]} and {bound[1]} over {first.shape[-1]} entries.",
            expected="sums below 2**53, which are exact.",
            remedy="use fewer tokens.",
        )
    return (first.astype(np.float64) @ second.astype(np.float64)).astype(np.int64)


def projected(rows: npt.NDArray[np.int8], challenge: Challenge, term: int) -> tuple[Int64, Int64]:
    """Both directions of term number ``term`` times ``rows`` [K, d]: the vectors [size, d] that enter its factors."""
    directions = challenge.directions(len(rows), term)
    return exact_product(directions.first, rows), exact_product(directions.second, rows)


def through(factor: npt.NDArray[np.int16], vectors: Int64) -> list[list[int]]:
    """``factor`` [r, d] times every vector [n, d]: n lists of r."""
    return exact_product(vectors, factor.T).tolist()


def sketch(model: IntegerModel, challenge: Challenge) -> IntegerSketch:
    """The sketch of a model whose integers are known, in the order of its words."""
    values: list[tuple[int, ...]] = []
    for place, term in enumerate(model.terms):
        first, second = projected(model.rows, challenge, place)
        pairs = zip(through(term.left, first), through(term.right, second), strict=True)
        values.append(tuple(sum(map(mul, *pair)) for pair in pairs))
    return IntegerSketch(tuple(term.name for term in model.terms), tuple(values))


def similarity(first: IntegerSketch, second: IntegerSketch, confidence: float = 0.95) -> Interval:
    """Mean over terms of the cosine of two sketches under one challenge, in [-1, 1].

    It estimates the mean cosine of the double-centred terms. The interval is Student's t over the jackknife's
    pseudo-values (leave out entry j of every term); its n is the number of entries a term. A term that is zero in
    either sketch has no cosine: the value is then NaN and the interval all of [-1, 1].

    Raises
    ------
    InvalidInput : different numbers of terms or entries, or terms in another order.
    """
    kinds = [[name.term for name in sketch.terms] for sketch in (first, second)]
    if kinds[0] != kinds[1] or first.size != second.size:
        raise InvalidInput(
            f"Sketches of {len(kinds[0])} terms of {first.size} and {len(kinds[1])} terms of {second.size} entries.",
            expected="the same terms of as many blocks, under the same challenge.",
            remedy="sketch both under one challenge.",
        )
    x, y = (np.array([_unit(values) for values in sketch.values]) for sketch in (first, second))
    cross, own, other = x * y, x * x, y * y
    size = first.size

    def mean_cosine(left_out: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        sums = [part.sum(1, keepdims=True) - left_out * part for part in (cross, own, other)]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.mean(sums[0] / np.sqrt(sums[1] * sums[2]), axis=0)

    value = float(mean_cosine(np.zeros(1))[0])
    without = mean_cosine(np.ones(size))
    if not math.isfinite(value) or not np.all(np.isfinite(without)):
        return Interval(value, -1.0, 1.0, size)
    around = mean_interval(size * value - (size - 1) * without, confidence, within=(-1.0, 1.0))
    return Interval(value, min(around.low, value), max(around.high, value), size)


def _unit(values: Sequence[int]) -> npt.NDArray[np.float64]:
    """The values divided by the largest, so that no square overflows."""
    largest = max(1, *(abs(value) for value in values))
    return np.array([value / largest for value in values])
