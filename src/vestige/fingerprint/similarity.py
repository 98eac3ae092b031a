"""Cosine of two terms from their factors, so that no K x K matrix is built.

For M = P Q^T and N = R S^T over the same K tokens

    <M, N> = sum((P^T R) o (Q^T S)),    mean of M = (1^T P)(Q^T 1) / K^2,

and taking row and column means off M takes column means off P and Q. Products of factors are summed in float64 over
blocks of tokens, so memory holds a few [r, r'] arrays whatever K is.

What a cosine would be by chance is known in closed form. Let N = Y O B O'^T Y^T, the term of a model with the second
model's tokens Y [K, d] and weights B whose bases have nothing to do with Y: O and O' are independent Haar rotations.
Then E<M, N> = 0 and E<M, N>^2 = |Y^T M Y|^2 |B|^2 / d^2, while E|N|^2 = |Y|^4 |B|^2 / d^2, so that the cosine has mean
0 and deviation |Y^T M Y| / (|M| |Y|^2), all norms Frobenius. It holds the tokens of both models fixed: that
independent models place words alike is part of it, and no factorisation of B enters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.terms import BlockTerms, Entry, Term
from vestige.models.transformer.block import Matrix


@dataclass(frozen=True, eq=False)
class Layer:
    """The terms of one block over chosen tokens; built from the same recipe as the tokens."""

    terms: BlockTerms
    entry: Entry

    def factors(self, term: Term) -> Iterator[tuple[Matrix, Matrix, Matrix]]:
        """X, P and Q of one block of tokens after the other."""
        for entry in self.entry.blocks():
            yield (entry, *self.terms.factors(term, entry))


@dataclass(eq=False)
class Outer:
    """``sum of first_k second_k^T`` over tokens k, in float64, and the means that centring takes off."""

    product: Doubles | float = 0.0
    first: Doubles | float = 0.0
    second: Doubles | float = 0.0
    count: int = 0

    def add(self, first: Matrix, second: Matrix) -> None:
        """Count the rows [k, r] and [k, r'] of the next tokens."""
        wide = first.astype(np.float64)
        other = wide if second is first else second.astype(np.float64)
        self.product = self.product + wide.T @ other
        self.first, self.second = self.first + wide.sum(0), self.second + other.sum(0)
        self.count += len(first)

    @property
    def centred(self) -> Doubles:
        """The sum [r, r'] over tokens with the mean of each column taken off."""
        return np.asarray(self.product - np.outer(self.first, self.second) / self.count)


@dataclass(eq=False)
class Inner:
    """Inner product ``<P Q^T, R S^T>`` of two terms."""

    double_centre: bool = True
    left: Outer = field(default_factory=Outer)
    right: Outer = field(default_factory=Outer)

    def add(self, first: tuple[Matrix, Matrix], second: tuple[Matrix, Matrix]) -> None:
        """Count the factors P, Q and R, S of the next tokens."""
        self.left.add(first[0], second[0])
        self.right.add(first[1], second[1])

    @property
    def value(self) -> float:
        """The inner product, rows and columns or the overall mean centred."""
        if self.double_centre:
            return float(np.sum(self.left.centred * self.right.centred))
        whole = float(np.sum(np.asarray(self.left.product) * np.asarray(self.right.product)))
        means = float(np.dot(self.left.first, self.right.first)) * float(np.dot(self.left.second, self.right.second))
        return whole - means / self.left.count**2


@dataclass(eq=False)
class _Chance:
    """``|Y^T M Y| / |Y|^2`` for a term M = P Q^T and tokens Y."""

    left: Outer = field(default_factory=Outer)
    right: Outer = field(default_factory=Outer)
    squares: float = 0.0

    def add(self, tokens: Matrix, left: Matrix, right: Matrix) -> None:
        self.left.add(tokens, left)
        self.right.add(right, tokens)
        self.squares += float(np.square(tokens, dtype=np.float64).sum())

    @property
    def value(self) -> float:
        mean = np.asarray(self.left.first) / self.left.count
        power = self.squares - self.left.count * float(np.dot(mean, mean))
        return float(np.linalg.norm(self.left.centred @ self.right.centred)) / power if power > 0 else 0.0


@dataclass(frozen=True)
class TermCosine:
    """Cosine of one term of two models in [-1, 1], NaN where a term is zero, and its deviation by chance."""

    value: float
    deviation: float


def squared_norm(layer: Layer, term: Term) -> float:
    """``|M|^2`` of one term, centred as its recipe says."""
    inner = Inner(layer.terms.recipe.double_centre)
    for _, left, right in layer.factors(term):
        inner.add((left, right), (left, right))
    return inner.value


def term_cosine(first: Layer, second: Layer, term: Term) -> TermCosine:
    """Cosine of one term of two blocks over the same tokens; widths may differ.

    Both layers hold the same tokens in the same order and use the same recipe.
    """
    centre = first.terms.recipe.double_centre
    cross, own, other = Inner(centre), Inner(centre), Inner(centre)
    chances = (_Chance(), _Chance())
    for (x, p, q), (y, r, s) in zip(first.factors(term), second.factors(term), strict=True):
        cross.add((p, q), (r, s))
        own.add((p, q), (p, q))
        other.add((r, s), (r, s))
        chances[0].add(y, p, q)
        chances[1].add(x, r, s)
    norms = math.sqrt(max(own.value, 0.0)), math.sqrt(max(other.value, 0.0))
    if min(norms) == 0.0:
        return TermCosine(math.nan, math.nan)
    deviation = max(chance.value / norm for chance, norm in zip(chances, norms, strict=True))
    return TermCosine(cross.value / (norms[0] * norms[1]), deviation)


@dataclass(frozen=True, eq=False)
class Flat:
    """A term with all its singular values made equal, ``left right^T``: both [K, k] with orthonormal columns."""

    left: Doubles
    right: Doubles


_ROUNDING = 1e-5
"""Singular values below this share of the largest hold little but rounding of float32."""


def flattened(layer: Layer, term: Term) -> Flat:
    """The double-centred term ``U S V^T`` as ``U V^T``, its polar factor.

    The few largest singular values of a term hold what the data taught, which independent models share; one by one,
    its other directions are as many marks of one training run. Only as many tokens as fit are meant: the factors of
    all are held at once, and the cost is that of a singular value decomposition of the smaller of K and r.
    """
    parts = [(left, right) for _, left, right in layer.factors(term)]
    left, right = (np.concatenate(side).astype(np.float64) for side in zip(*parts, strict=True))
    left, right = left - left.mean(0), right - right.mean(0)
    if len(left) <= left.shape[1]:
        first, values, second = np.linalg.svd(left @ right.T)
        second = second.T
    else:
        (base, upper), (other, lower) = np.linalg.qr(left), np.linalg.qr(right)
        inner, values, outer = np.linalg.svd(upper @ lower.T)
        first, second = base @ inner, other @ outer.T
    kept = values > _ROUNDING * max(float(values[0]), np.finfo(np.float64).tiny)
    return Flat(first[:, : len(values)][:, kept], second[:, : len(values)][:, kept])


def flat_cosine(first: Flat, second: Flat) -> float:
    """Cosine of two flattened terms over the same tokens; NaN where one is zero.

    Were one turned at random in the space that its tokens span, of d dimensions, it would have mean 0 and a deviation
    of at most ``1 / d``: with Haar W, ``E tr(C W)^2 = |C|^2 / d``, and |C|^2 is at most the number of directions.
    """
    size = first.left.shape[1] * second.left.shape[1]
    if size == 0:
        return math.nan
    return float(np.sum((first.left.T @ second.left) * (first.right.T @ second.right))) / math.sqrt(size)
