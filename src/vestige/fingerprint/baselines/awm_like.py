"""Weights aligned by an assignment on the embedding, compared by unbiased CKA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.optimize import linear_sum_assignment

from vestige.fingerprint.alignment import signed_permutation
from vestige.fingerprint.evidence.aligned_cka import cosine, haar_deviation, u_centred, unalignable
from vestige.fingerprint.evidence.evidence import Evidence, Finding
from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.pair import Pair
from vestige.fingerprint.terms import AS_PUBLISHED
from vestige.fingerprint.words import Everything, Rows
from vestige.models.transformer.block import Transformer

_Grams = tuple[Doubles, Doubles]


def _grams(transformer: Transformer, index: int, columns: Rows | None = None, signs: Doubles | None = None) -> _Grams:
    """Centred Gram matrices [d, d] of the queries and keys of one layer, columns reordered and signed where given."""
    part = transformer.block(index).attention
    found: list[Doubles] = []
    for matrix in (part.query, part.key):
        held = matrix.astype(np.float64)
        held = held if columns is None or signs is None else held[:, columns] * signs
        found.append(u_centred(held.T @ held))
    return found[0], found[1]


def _cosines(first: _Grams, second: _Grams) -> tuple[float, float]:
    return cosine(first[0], second[0]), cosine(first[1], second[1])


@dataclass(frozen=True)
class AwmLike(Evidence):
    """Mean unbiased linear CKA of query and of key matrices over the columns that an assignment pairs.

    Columns of the embedding of common tokens are paired, with signs, by the largest absolute correlation; query and
    key matrices are taken as they are, gains included nowhere. Where depths differ, layers are paired by an assignment
    on the mean of both. The public code may differ in what the paper leaves open.
    """

    claim: ClassVar[str] = "Permuted and sign-flipped weights can be put back by their embedding."
    source: ClassVar[str] = "Zeng et al. 2026 (AWM, ICLR)"

    def measure(self, pair: Pair) -> Finding:
        """The mean over layers; parts are the means of queries and of keys."""
        reason = unalignable(pair)
        if reason:
            return self.nothing(reason)
        if pair.first.width != pair.second.width:
            return self.nothing("the widths differ")
        ours, theirs = (entry.matrix.astype(np.float64) for entry in pair.entries(Everything(), AS_PUBLISHED))
        change = signed_permutation(ours, theirs)
        if change is None:
            return self.nothing("no columns of the embedding stand out as pairs")
        target, signs = np.abs(change).argmax(0), change.sum(0)
        values = self._layers(pair, target.astype(np.int64), signs)
        if not np.isfinite(values).any():
            return self.nothing("the matrices of one of the models are zero")
        query, key = np.nanmean(values, axis=0)
        parts = (("query", float(query)), ("key", float(key)))
        return Finding(self.name, float(np.nanmean(values)), haar_deviation(pair.first.width), parts)

    def _layers(self, pair: Pair, columns: Rows, signs: Doubles) -> Doubles:
        """CKA of queries and keys [layers, 2] of every pair of layers."""
        (first, second), depths = pair.models, (pair.first.depth, pair.second.depth)
        if depths[0] == depths[1]:
            every = range(depths[0])
            return np.array([_cosines(_grams(first, k), _grams(second, k, columns, signs)) for k in every])
        held = [_grams(second, index, columns, signs) for index in range(depths[1])]
        table = np.zeros((*depths, 2))
        for index in range(depths[0]):
            ours = _grams(first, index)
            table[index] = [_cosines(ours, theirs) for theirs in held]
        return table[linear_sum_assignment(np.nan_to_num(table.mean(2)), maximize=True)]
