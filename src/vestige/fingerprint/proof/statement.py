"""The public side of what is proven: which inner products, and how much of every column is in the last pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from vestige.fingerprint.proof.algebra import folded_weights, inverse
from vestige.fingerprint.proof.challenge import Challenge
from vestige.fingerprint.proof.commitment import Commitment
from vestige.fingerprint.proof.group import ORDER
from vestige.fingerprint.proof.integers import Int16, IntegerTerm
from vestige.fingerprint.proof.sketch import Int64, projected, through

Rows = list[list[int]]


@dataclass(frozen=True, eq=False)
class Statement:
    """Projected directions ``first`` and ``second``, for every term [size, d].

    Claim number k is about entry j of term t, ``k = t * size + j``; one more claim, the last, is about all columns.
    """

    first: tuple[Int64, ...]
    second: tuple[Int64, ...]

    @staticmethod
    def of(commitment: Commitment, challenge: Challenge) -> Statement:
        """The claims that a challenge asks for."""
        sides = [projected(commitment.rows, challenge, term) for term in range(len(commitment.terms))]
        return Statement(tuple(first for first, _ in sides), tuple(second for _, second in sides))

    @property
    def claims(self) -> int:
        """Entries over all terms; the last claim does not count."""
        return sum(len(vectors) for vectors in self.first)

    def products(self, terms: Sequence[IntegerTerm]) -> tuple[Rows, Rows]:
        """``L_t v`` and ``R_t w`` of every claim but the last."""
        left = [row for term, held in zip(terms, self.first, strict=True) for row in through(term.left, held)]
        right = [row for term, held in zip(terms, self.second, strict=True) for row in through(term.right, held)]
        return left, right

    def all_columns(self, terms: Sequence[IntegerTerm], taus: Sequence[int]) -> tuple[list[int], list[int]]:
        """The vectors of the last claim: columns of all left and of all right factors, summed with these weights."""
        return _summed([term.left for term in terms], taus), _summed([term.right for term in terms], taus)

    def weights(
        self, taus: Sequence[int], rhos: Sequence[int], challenges: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """What every column of the left and of the right factors weighs in the pair that is left, term after term."""
        count = self.claims + 1
        on_left = folded_weights(challenges, count)
        backs = folded_weights([inverse(u) for u in challenges], count)
        on_right = [rho * back % ORDER for rho, back in zip(rhos, backs, strict=True)]
        return _column_weights(self.first, on_left, taus), _column_weights(self.second, on_right, taus)


def _summed(factors: Sequence[Int16], taus: Sequence[int]) -> list[int]:
    total: list[int] = []
    start = 0
    for factor in factors:
        weights = np.array(taus[start : start + factor.shape[1]], dtype=object)
        column = (factor.astype(object) @ weights).tolist()
        total = [x + y for x, y in zip_longest(total, column, fillvalue=0)]
        start += factor.shape[1]
    return [entry % ORDER for entry in total]


def _column_weights(vectors: Sequence[Int64], weights: Sequence[int], taus: Sequence[int]) -> list[int]:
    found: list[int] = []
    start = 0
    for held in vectors:
        part = np.array(weights[start : start + len(held)], dtype=object)
        found += (part @ held.astype(object)).tolist()
        start += len(held)
    return [(value + weights[-1] * tau) % ORDER for value, tau in zip(found, taus, strict=True)]
