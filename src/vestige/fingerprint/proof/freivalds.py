"""Whether a claimed matrix is a product, in time linear in its entries (Freivalds 1979).

For a random vector z, ``C z = P (Q^T z)`` is checked without forming ``P Q^T``. Over a prime field a wrong C passes
with probability at most 1/p. Integers are compared, not residues: a claim could differ by a multiple of one prime, so
two primes are used, whose product exceeds any difference there can be.
"""

from __future__ import annotations

import math
import secrets

import numpy as np
import numpy.typing as npt

from vestige.errors import InvalidInput, Unsupported
from vestige.fingerprint.proof.challenge import Entropy

PRIMES = (2**31 - 1, 2**31 - 19)
LARGEST_CLAIM = 1 << 53
_HALF = 16

Integers = npt.NDArray[np.int64]


def error_bound(repetitions: int) -> float:
    """Probability at most with which a wrong claim passes."""
    return float(max(1 / prime for prime in PRIMES) ** repetitions)


def is_product(
    claim: Integers, left: Integers, right: Integers, repetitions: int = 4, entropy: Entropy = secrets.token_bytes
) -> bool:
    """Whether ``claim`` [n, m] is ``left right^T`` for ``left`` [n, r] and ``right`` [m, r].

    A true claim always passes, a wrong one with a probability of at most :func:`error_bound`. A claim with an entry of
    2**53 or more in magnitude is refused. The vectors come from ``entropy``, which the one who claims must not know.

    Raises
    ------
    InvalidInput : shapes do not fit, or no repetition. Unsupported : the product could be too large for two primes.
    """
    if repetitions < 1 or claim.shape != (len(left), len(right)) or left.shape[1] != right.shape[1]:
        raise InvalidInput(
            f"A claim {claim.shape} of factors {left.shape} and {right.shape}, {repetitions} repetitions.",
            expected="[n, m] for [n, r] and [m, r], at least one repetition.",
            remedy="check the claim's shape.",
        )
    largest = left.shape[1] * _largest(left) * _largest(right)
    if largest + LARGEST_CLAIM >= math.prod(PRIMES) or max(*claim.shape, left.shape[1]) > 1 << _HALF:
        raise Unsupported(
            f"A product of {claim.shape} with entries of up to {largest}.",
            expected=f"below {math.prod(PRIMES) - LARGEST_CLAIM}, and at most {1 << _HALF} rows and columns.",
            remedy="recompute the product instead.",
        )
    if _largest(claim) >= LARGEST_CLAIM:
        return False
    return all(_agrees(claim, left, right, prime, repetitions, entropy) for prime in PRIMES)


def _largest(matrix: Integers) -> int:
    return max(abs(int(matrix.max(initial=0))), abs(int(matrix.min(initial=0))))


def _agrees(claim: Integers, left: Integers, right: Integers, prime: int, repetitions: int, entropy: Entropy) -> bool:
    held, first, second = (np.mod(matrix, prime).astype(np.uint64) for matrix in (claim, left, right.T))
    for _ in range(repetitions):
        vector = _uniform(claim.shape[1], prime, entropy)
        if not np.array_equal(_times(held, vector, prime), _times(first, _times(second, vector, prime), prime)):
            return False
    return True


def _uniform(count: int, prime: int, entropy: Entropy) -> npt.NDArray[np.uint64]:
    """``count`` residues, uniform: 31-bit numbers of the prime or more are drawn again."""
    kept = np.empty(0, np.uint64)
    while len(kept) < count:
        drawn = np.frombuffer(entropy(4 * count), "<u4").astype(np.uint64) & np.uint64(2**31 - 1)
        kept = np.concatenate([kept, drawn[drawn < prime]])
    return kept[:count]


def _times(matrix: npt.NDArray[np.uint64], vector: npt.NDArray[np.uint64], prime: int) -> npt.NDArray[np.uint64]:
    """``matrix vector`` modulo the prime; 31 + 16 bits, summed at most 2**16 times, stay below 2**64."""
    modulus, half = np.uint64(prime), np.uint64(_HALF)
    low, high = (matrix @ part % modulus for part in (vector & np.uint64((1 << _HALF) - 1), vector >> half))
    return (low + (high << half)) % modulus
