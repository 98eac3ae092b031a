"""Which layer of one model became which layer of another: layers dropped, inserted or repeated.

The order of layers is kept by all of these, so the matching is the best increasing one: a path through the matrix of
similarities that may skip layers of either side at no cost and gains ``similarity - level`` for every pair (dynamic
programming as in Needleman and Wunsch, J. Mol. Biol. 48, 1970).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vestige.fingerprint.fold import Doubles

LEAST = 0.1
"""Layers whose similarity is lower are never matched."""
_DEVIATIONS = 3.5
"""Layers are matched from so many deviations of a sketch on: of a thousand unrelated pairs hardly one gets there."""


def level_of(numbers: int) -> float:
    """The least similarity at which layers are matched by sketches of so many numbers, whose error is 1 / sqrt(n)."""
    return max(LEAST, _DEVIATIONS * numbers**-0.5)


@dataclass(frozen=True, eq=False)
class LayerMatch:
    """``pairs`` of layers (first, second), increasing in both, and the ``similarity`` [depth, depth] they come from."""

    pairs: tuple[tuple[int, int], ...]
    similarity: Doubles

    @property
    def dropped(self) -> tuple[int, ...]:
        """Layers of the first model that no layer of the second continues."""
        return tuple(sorted(set(range(self.similarity.shape[0])) - {pair[0] for pair in self.pairs}))

    @property
    def inserted(self) -> tuple[int, ...]:
        """Layers of the second model that continue none of the first."""
        return tuple(sorted(set(range(self.similarity.shape[1])) - {pair[1] for pair in self.pairs}))


def match_layers(similarity: Doubles, level: float) -> LayerMatch:
    """The increasing matching of rows and columns of ``similarity`` [m, n] with the largest sum above ``level``."""
    rows, columns = similarity.shape
    gain = np.where(np.isfinite(similarity), similarity, -np.inf) - level
    best = np.zeros((rows + 1, columns + 1))
    for i in range(rows):
        for j in range(columns):
            best[i + 1, j + 1] = max(best[i, j + 1], best[i + 1, j], best[i, j] + gain[i, j])
    pairs: list[tuple[int, int]] = []
    i, j = rows, columns
    while i and j:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return LayerMatch(tuple(reversed(pairs)), similarity)


def cosines(first: Doubles, second: Doubles) -> Doubles:
    """Cosine [m, n] of every row of ``first`` [m, k] with every row of ``second`` [n, k]; 0 where one is zero."""
    lengths = np.outer(np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1))
    products = first @ second.T
    return np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
