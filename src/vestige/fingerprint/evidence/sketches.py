"""Evidence from the vectors of published cards: no weights, no tokenizer at hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.fingerprint.card import word_share
from vestige.fingerprint.evidence.evidence import Evidence, Finding
from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.pair import Pair

_SHARED = 0.5
"""Below this share of common tokens the sums of two sketches run over different tokens and say nothing."""


def _cosine(first: Doubles, second: Doubles) -> float:
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(np.dot(first, second)) / length if length > 0 else math.nan


def _unshared(pair: Pair) -> str:
    share = word_share(pair.first, pair.second)
    return "" if share >= _SHARED else f"the models share about {share:.0%} of their tokens"


@dataclass(frozen=True)
class SketchedTerms(Evidence):
    """Cosine of the cards' vectors: the median over the bands whose tokens are the same in both, and the first band.

    The deviation is that of a sketch of n numbers, ``1 / sqrt(n)``.
    """

    claim: ClassVar[str] = "A vector of a few hundred numbers keeps the cosine of the invariant terms."
    source: ClassVar[str] = "Zeng et al. 2024, arXiv 2312.04828; random rank-one sketches"
    needs_weights: ClassVar[bool] = False

    def measure(self, pair: Pair) -> Finding:
        """The median; parts are the single bands."""
        reason = _unshared(pair)
        if reason:
            return self.nothing(reason)
        theirs = {band.band: band for band in pair.second.bands}
        parts: list[tuple[str, float]] = []
        for place, band in enumerate(pair.first.bands):
            other = theirs.get(band.band)
            # The first band is drawn by hashes and outlasts new words and other orders; the rest must be the same set.
            if other is not None and (place == 0 or other.tokens == band.tokens):
                value = _cosine(band.vector, other.vector)
                if not math.isnan(value):
                    parts.append((band.band, value))
        if not parts:
            return self.nothing("no band of tokens is in both cards")
        value = float(np.median([value for _, value in parts]))
        return Finding(self.name, value, len(pair.first.vector) ** -0.5, tuple(parts))


@dataclass(frozen=True)
class LayerSketches(Evidence):
    """Mean cosine over matched layers of the sketches of their flattened terms, all layers of the model.

    The deviation is that of unrelated layers: the error of sketches of n numbers, averaged over layers.
    """

    claim: ClassVar[str] = "Dropped, repeated or inserted layers leave the others where they were."
    source: ClassVar[str] = "Zeng et al. 2024, arXiv 2312.04828; layer matching as in GhostSpec, arXiv 2511.06390"
    needs_weights: ClassVar[bool] = False

    def measure(self, pair: Pair) -> Finding:
        """The mean over pairs of layers; parts are the share of the shallower model's layers that were matched and
        the mean over layers that stand elsewhere in the other model.
        """
        reason = _unshared(pair)
        if reason or pair.match is None:
            return self.nothing(reason or "a card holds no sketches of its layers")
        similarity = pair.match.similarity
        ours, theirs = (np.array(side) for side in zip(*pair.layers, strict=True))
        elsewhere = np.ones(similarity.shape, bool)
        elsewhere[ours, theirs] = False
        parts = [("share of layers matched", len(pair.match.pairs) / min(similarity.shape))]
        if elsewhere.any():
            parts.append(("elsewhere", float(similarity[elsewhere].mean())))
        deviation = (pair.first.layers[0].size * len(ours)) ** -0.5
        return Finding(self.name, float(similarity[ours, theirs].mean()), deviation, tuple(parts))
