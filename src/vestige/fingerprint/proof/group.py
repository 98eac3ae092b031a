"""The group that commitments live in: G1 of BLS12-381, of prime order, through the library py_arkworks_bls12381.

Discrete logarithms in it are believed to take about 2**120 steps or more. Arithmetic on scalars is done with Python's
integers, which take a time that depends on their value: do not prove where an adversary can time the prover.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from vestige.dependencies import need
from vestige.errors import CorruptFile, InvalidInput, Unsupported

if TYPE_CHECKING:
    from py_arkworks_bls12381 import G1Point as Point
    from py_arkworks_bls12381 import Scalar
else:
    Point = Any

ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
"""Number of points, a prime."""
POINT_BYTES = 48
SCALAR_BYTES = 32

_SUITE = b"VESTIGE-FINGERPRINT-V1-with-BLS12381G1_XMD:SHA-256_SSWU_RO_"


@cache
def _library() -> Any:
    if sys.version_info < (3, 11):
        raise Unsupported(
            f"This is Python {sys.version_info.major}.{sys.version_info.minor}.",
            expected="Python 3.11 or newer, which py-arkworks-bls12381 needs.",
            remedy="prove and verify under a newer Python; the auditor's tier works under this one.",
        )
    return need("proof", "py_arkworks_bls12381")


def hashed(label: str, index: int = 0) -> Point:
    """A point whose discrete logarithm to any other nobody knows: RFC 9380, BLS12381G1_XMD:SHA-256_SSWU_RO_.

    The message is the label and the index, so there was nothing to choose.
    """
    return _library().G1Point.hash_to_curve(label.encode() + b"/" + index.to_bytes(4, "big"), _SUITE)


def identity() -> Point:
    """The neutral element."""
    return _library().G1Point.identity()


def multiply(points: Sequence[Point], scalars: Iterable[int]) -> Point:
    """``sum of scalars[i] points[i]``; scalars are integers of any size and sign.

    Raises
    ------
    InvalidInput : the two differ in number.
    """
    scalar = _library().Scalar
    held = [scalar(value % ORDER) for value in scalars]
    return _sum(points, held)


def multiply_small(points: Sequence[Point], scalars: Iterable[int], largest: int) -> Point:
    """:func:`multiply` for ``0 <= scalars[i] <= largest``, many times faster where ``largest`` is small."""
    table = _small(largest)
    return _sum(points, [table[value] for value in scalars])


@cache
def _small(largest: int) -> list[Scalar]:
    scalar = _library().Scalar
    return [scalar(value) for value in range(largest + 1)]


def _sum(points: Sequence[Point], scalars: list[Scalar]) -> Point:
    # The library takes the shorter of two lists without a word.
    if len(points) != len(scalars):
        raise InvalidInput(
            f"{len(points)} points and {len(scalars)} scalars.", expected="as many of each.", remedy="check the sizes."
        )
    return _library().G1Point.multiexp_unchecked(list(points), scalars)


def encode(point: Point) -> bytes:
    """The point in 48 bytes."""
    return point.to_compressed_bytes()


def decode(data: bytes, name: str) -> Point:
    """A point from its 48 bytes, checked to lie in the group and not to be neutral.

    Raises
    ------
    CorruptFile : anything else, and any encoding but the one that :func:`encode` gives.
    """
    try:
        point = _library().G1Point.from_compressed_bytes(data)
    except ValueError as error:
        raise _bad_point(name) from error
    # The library reads several byte strings as the neutral element, which no honest sender has use for.
    if point == identity() or encode(point) != data:
        raise _bad_point(name)
    return point


def _bad_point(name: str) -> CorruptFile:
    return CorruptFile(
        f"A point of {name} is not one of the group.",
        expected="48 bytes that name a point of G1 of BLS12-381 other than the neutral one.",
        remedy="ask for the file again.",
    )
