"""A term as a few numbers whose cosines are those of the terms: seeded rank-one sketches, nothing trained.

``f_j = (a_j^T P)(Q^T b_j) / |M|`` for a centred term M = P Q^T, where the entries of a_j and b_j for one token are
standard normal and belong to the token's string, the seed and the slot: the same word has the same numbers in every
model and in every order of rows. ``E[f_j g_j] = <M, N> / (|M| |N|)``, so the cosine of two vectors estimates the mean
cosine of their terms, and each f_j is linear in M, which makes it cheap to prove. Products of normal numbers have
heavy tails; one fixed seeded rotation of the whole vector makes its entries nearly normal and keeps every cosine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from vestige.errors import InvalidInput
from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.similarity import Flat, Inner, Layer, Outer
from vestige.fingerprint.terms import Term
from vestige.fingerprint.words import Words
from vestige.models.transformer.block import Matrix
from vestige.randomness import Stream, generator

_MIX = 1 << 32
"""Draw of the mixing rotation, far beyond those of directions."""


def _normal(seed: int, rows: Sequence[int], draw: int, count: int) -> Doubles:
    """Standard normal numbers [len(rows), count] from the raw bits of the generator, which no release changes."""
    raw = np.empty((len(rows), count), np.uint64)
    for place, row in enumerate(rows):
        raw[place] = generator(seed, Stream.SKETCH, row, draw).bit_generator.random_raw(count)
    return ndtri(((raw >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53)


@dataclass(frozen=True, eq=False)
class Directions:
    """``first`` and ``second`` [k, size]: what the two sides of a term are multiplied by, one row a token."""

    first: Matrix
    second: Matrix


@dataclass(frozen=True)
class Sketch:
    """Rank-one sketches of terms.

    Parameters
    ----------
    size : numbers a term; the cosine of two sketches of t terms has an error of about ``1 / sqrt(t * size)``.
    seed : public; only vectors of one seed can be compared.
    """

    size: int = 85
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.seed < 1 << 64:
            raise InvalidInput(
                f"A sketch of {self.size} numbers a term with seed {self.seed}.",
                expected="at least 1 number and a seed of 0 to 2**64 - 1.",
                remedy="change the setting.",
            )

    def directions(self, words: Words, slots: int, draw: int = 0) -> list[Directions]:
        """The directions of these words for ``slots`` sketches that share no numbers; another draw shares none either.

        More slots continue the numbers of fewer.
        """
        rows = [int(value) for value in words.hashes]
        drawn = _normal(self.seed, rows, draw, 2 * slots * self.size).astype(np.float32)
        sides = drawn.reshape(len(words), slots, 2, self.size).transpose(1, 2, 0, 3)
        return [Directions(first, second) for first, second in sides]

    def encode(self, layer: Layer, term: Term, directions: Directions) -> Doubles:
        """The sketch [size] of one term over the tokens of the directions; zeros where the term is zero."""
        left, right, norm, start = Outer(), Outer(), Inner(), 0
        for _, p, q in layer.factors(term):
            part = slice(start, start + len(p))
            left.add(p, directions.first[part])
            right.add(q, directions.second[part])
            norm.add((p, q), (p, q))
            start += len(p)
        length = math.sqrt(max(norm.value, 0.0))
        sketch = np.sum(left.centred * right.centred, axis=0)
        return sketch / length if length > 0 else np.zeros(self.size)

    def encode_flat(self, flat: Flat, directions: Directions) -> Doubles:
        """The sketch [size] of a flattened term, of length 1 as the others; zeros where the term is zero."""
        first, second = (side.astype(np.float64) for side in (directions.first, directions.second))
        sketch = np.sum((flat.left.T @ first) * (flat.right.T @ second), axis=0)
        return sketch / math.sqrt(max(flat.left.shape[1], 1))

    def mixed(self, vector: npt.NDArray[np.floating]) -> Doubles:
        """The vector [n] rotated and scaled to entries of mean square 1, nearly normal; cosines are kept.

        Raises
        ------
        InvalidInput : the vector is zero.
        """
        n, length = vector.size, float(np.linalg.norm(vector))
        if length == 0:
            raise InvalidInput(
                "The fingerprint vector is zero.",
                expected="terms that are not zero.",
                remedy="check that the model's weights are loaded.",
            )
        basis, upper = np.linalg.qr(_normal(self.seed, range(n), _MIX, n))
        rotation = basis * np.sign(np.diag(upper))
        return rotation @ vector.astype(np.float64) * (math.sqrt(n) / length)
