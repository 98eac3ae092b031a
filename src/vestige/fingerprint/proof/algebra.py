"""Vectors over the scalar field, folding, the fixed points of all commitments, and equations between points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from operator import mul

from vestige.fingerprint.proof.group import ORDER, Point, hashed, identity, multiply

Equation = list[tuple[Point, int]]
"""Points with scalars whose sum is claimed to be neutral; also a point written as such a sum."""


@dataclass(frozen=True)
class Bases:
    """Points with no known relation: ``left`` and ``right`` [n] for vectors, one each for the rest."""

    left: tuple[Point, ...]
    right: tuple[Point, ...]
    value: Point
    product: Point
    blind: Point


@cache
def _family(label: str, size: int) -> tuple[Point, ...]:
    return tuple(hashed(label, index) for index in range(size))


@cache
def bases(size: int) -> Bases:
    """The points for vectors of at most ``size`` entries; those of a smaller size come first."""
    alone = (hashed(label) for label in ("value", "product", "blind"))
    return Bases(_family("left", size), _family("right", size), *alone)


def width_for(size: int) -> int:
    """The smallest power of two that is at least ``size``."""
    return 1 << rounds_for(size)


def rounds_for(size: int) -> int:
    """Times that ``size`` entries are folded until one is left."""
    return max(size - 1, 0).bit_length()


def dot(first: Sequence[int], second: Sequence[int]) -> int:
    """Inner product modulo the order; the shorter vector goes on with zeros."""
    return sum(map(mul, first, second)) % ORDER


def fold(low: Sequence[int], high: Sequence[int], factor: int) -> list[int]:
    """``low + factor * high`` modulo the order; the shorter vector goes on with zeros."""
    return [(x + factor * y) % ORDER for x, y in zip_longest(low, high, fillvalue=0)]


def inverse(scalar: int) -> int:
    """Inverse modulo the order of a scalar that is not zero."""
    return pow(scalar, -1, ORDER)


def powers(scalar: int, count: int) -> list[int]:
    """``1, s, s^2, ...`` modulo the order."""
    found, power = list[int](), 1
    for _ in range(count):
        found.append(power)
        power = power * scalar % ORDER
    return found


def folded_weights(challenges: Sequence[int], count: int) -> list[int]:
    """What each of ``count`` entries is multiplied by when halves are folded with these challenges, first to last.

    The first round folds the upper half of 2**len(challenges) entries onto the lower, so the first challenge
    multiplies every entry whose highest bit is set, and so on.
    """
    weights = [1]
    for challenge in challenges:
        weights = [weight * factor % ORDER for weight in weights for factor in (1, challenge)]
    return weights[:count]


def holds(equations: Sequence[Equation], weight: int) -> bool:
    """Whether every sum is neutral: all at once, equation k multiplied by ``weight**k``.

    A false one passes with probability at most ``len(equations) / ORDER`` over a weight drawn after they were fixed.
    """
    points: list[Point] = []
    scalars: list[int] = []
    for equation, factor in zip(equations, powers(weight, len(equations)), strict=True):
        for point, scalar in equation:
            points.append(point)
            scalars.append(scalar * factor)
    return multiply(points, scalars) == identity()
