"""The code of a fingerprint vector: a few letters in which kinship shows, and a few in which any difference does."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.errors import InvalidInput
from vestige.fingerprint.portrait.public import directed, orthonormal
from vestige.metrics.interval import Interval, wilson

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Base 32 without I, L, O and U, which are mistaken for other signs (Crockford)."""

KIN_BITS, EXACT_BITS = 60, 80
_SEED, _DRAW = 0, 1
_STEPS, _GROUP, _BITS = 8, 4, 5


@dataclass(frozen=True)
class VectorCode:
    """What is printed under a portrait.

    Parameters
    ----------
    kin : 60 bits: on which side of 60 public planes, random and orthogonal, the vector lies (Charikar 2002, random
        hyperplane hashing). Vectors at an angle a differ in a share a / pi of them, so relatives have similar codes and
        strangers agree in half of the bits. Anyone may search for weights with a wanted one: it is no proof.
    exact : 80 bits of SHA-256 over the vector in steps of an eighth of its root mean square: another vector, however
        near, almost surely has another one. It changes with a number that lies at the edge of a step by rounding.
    """

    kin: str
    exact: str

    @staticmethod
    def of(vector: npt.ArrayLike) -> VectorCode:
        """The code of a fingerprint vector [d]; its length does not matter.

        Raises
        ------
        InvalidInput : it is no row of finite numbers, or zero.
        """
        values = directed(vector)
        sides = orthonormal(_SEED, KIN_BITS, values.size, _DRAW) @ values > 0
        steps = np.clip(np.rint(values * _STEPS), -127, 127).astype(np.int8)
        digest = hashlib.sha256(f"{steps.size}|".encode() + steps.tobytes()).digest()
        exact = np.unpackbits(np.frombuffer(digest, np.uint8))[:EXACT_BITS]
        return VectorCode(_letters(sides), _letters(exact.astype(bool)))

    def bits(self) -> npt.NDArray[np.bool_]:
        """The 60 bits of ``kin``.

        Raises
        ------
        InvalidInput : it is no such code.
        """
        letters = self.kin.upper().replace("-", "")
        if len(letters) * _BITS != KIN_BITS or not set(letters) <= set(ALPHABET):
            raise InvalidInput(
                f"The code is {self.kin!r}.",
                expected=f"{KIN_BITS // _BITS} letters and digits, without I, L, O and U.",
                remedy="copy it again from below the portrait.",
            )
        values = np.array([ALPHABET.index(letter) for letter in letters], np.uint8)
        return ((values[:, None] >> np.arange(_BITS - 1, -1, -1, dtype=np.uint8)) & 1).ravel().astype(bool)

    def cosine(self, other: VectorCode) -> Interval:
        """What the codes alone tell of the vectors' cosine: cos(pi x share of differing bits), with its interval.

        Raises
        ------
        InvalidInput : one is no such code.
        """
        different = wilson(int((self.bits() != other.bits()).sum()), KIN_BITS)
        value, high, low = (math.cos(math.pi * share) for share in (different.value, different.low, different.high))
        return Interval(value, low, high, KIN_BITS)


def _letters(bits: npt.NDArray[np.bool_]) -> str:
    values = bits.reshape(-1, _BITS) @ (1 << np.arange(_BITS - 1, -1, -1))
    letters = "".join(ALPHABET[value] for value in values)
    return "-".join(letters[start : start + _GROUP] for start in range(0, len(letters), _GROUP))
