"""Which entries of a sketch are asked for: signs drawn from a nonce and from the commitments they are about.

Every direction is a uniformly random vector over the K tokens with as many +1 as -1, and one 0 where K is odd. It sums
to zero, so ``a^T M b = a^T H M H b`` with ``H = I - 1 1^T / K``: double centring comes for free and stays in integers.
Entries of such a vector are exchangeable with ``E[a a^T] = c H``, c = K/(K-1) or 1 for odd K, so two terms M and N
have ``E[(a^T M b)(a^T N b)] = c^2 <HMH, HNH>``: the cosine of two sketches estimates that of the centred terms.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.errors import InvalidInput

Entropy = Callable[[int], bytes]
"""Where unpredictable bytes come from: ``secrets.token_bytes``, and something else in tests alone."""

DIGEST_BYTES = 32
LEAST_NONCE, MOST_NONCE = 16, 64
MOST_SIZE = 1 << 12
_MOST_PARTIES = 1 << 10

Signs = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Challenge:
    """What a verifier sends.

    Parameters
    ----------
    nonce : 16 to 64 bytes that the owner could not have predicted.
    commitments : digests (32 bytes each, ascending) of all commitments that are compared under it. With none the
        directions were known before any commitment: the same for every model, and no evidence by themselves.
    size : entries a term, 2 to 4096.
    """

    nonce: bytes
    commitments: tuple[bytes, ...]
    size: int = 85

    def __post_init__(self) -> None:
        wrong = (
            not LEAST_NONCE <= len(self.nonce) <= MOST_NONCE
            or not 2 <= self.size <= MOST_SIZE
            or any(len(digest) != DIGEST_BYTES for digest in self.commitments)
            or list(self.commitments) != sorted(set(self.commitments))
            or len(self.commitments) > _MOST_PARTIES
        )
        if wrong:
            raise InvalidInput(
                f"A challenge with a nonce of {len(self.nonce)} bytes, {len(self.commitments)} commitments and "
                f"{self.size} entries a term.",
                expected=f"{LEAST_NONCE} to {MOST_NONCE} bytes; distinct digests in ascending order; 2 to {MOST_SIZE}.",
                remedy="draw the challenge with Challenge.draw.",
            )

    @staticmethod
    def draw(commitments: Sequence[bytes], size: int = 85, entropy: Entropy = secrets.token_bytes) -> Challenge:
        """A fresh challenge to the owners of these commitments, given by their digests."""
        return Challenge(entropy(32), tuple(sorted(set(commitments))), size)

    @staticmethod
    def public(size: int = 85) -> Challenge:
        """Directions that everybody knows, for a sketch to publish beside a commitment."""
        return Challenge(b"vestige public sketch 1", (), size)

    def encode(self) -> bytes:
        """One byte string a challenge."""
        parts = (self.nonce, self.size.to_bytes(4, "big"), *self.commitments)
        return b"".join(len(part).to_bytes(4, "big") + part for part in parts)

    def directions(self, tokens: int, term: int) -> Directions:
        """The directions of term number ``term`` over this many tokens."""
        counted = b"%d tokens" % tokens
        seed = hashlib.sha256(b"vestige directions 1" + self.encode() + counted).digest()
        first, second = np.empty((self.size, tokens), np.int8), np.empty((self.size, tokens), np.int8)
        for side, signs in enumerate((first, second)):
            for entry in range(self.size):
                place = b"".join(number.to_bytes(4, "big") for number in (side, term, entry))
                signs[entry] = balanced_signs(seed + place, tokens)
        return Directions(first, second)


@dataclass(frozen=True, eq=False)
class Directions:
    """``first`` and ``second`` [size, K]: what the two sides of one term are multiplied by."""

    first: Signs
    second: Signs


def balanced_signs(seed: bytes, count: int) -> Signs:
    """A random order (64-bit keys from SHAKE-256, ties in order) whose first half gets +1 and last half -1."""
    keys = np.frombuffer(hashlib.shake_256(seed).digest(8 * count), "<u8")
    order = np.argsort(keys, kind="stable")
    signs = np.zeros(count, np.int8)
    signs[order[: count // 2]] = 1
    signs[order[count - count // 2 :]] = -1
    return signs
