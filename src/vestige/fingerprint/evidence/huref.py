"""Cosine of the invariant terms, and the recipe as it was published."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.fingerprint.evidence.evidence import Evidence, Finding
from vestige.fingerprint.pair import Pair
from vestige.fingerprint.similarity import Layer, TermCosine, term_cosine
from vestige.fingerprint.terms import AS_PUBLISHED, EXACT, BlockTerms, Recipe, Term
from vestige.fingerprint.words import BANDS, Band, Rarest

_PUBLISHED_TOKENS = 4096


@dataclass(frozen=True)
class HuRef(Evidence):
    """Mean cosine of the three invariant terms of the last layers, the median over bands of tokens.

    Parameters
    ----------
    as_published : the released recipe: raw matrices, gate multiplied into weights, key heads tiled, only the overall
        mean taken off, the rarest tokens alone. It does not keep its value when gains are folded or the residual
        stream is turned.
    bands : of tokens; ``as_published`` takes the 4096 rarest, by the order of rows instead of a count over a corpus.
    last : pairs of matched layers from the end.
    """

    claim: ClassVar[str] = "Products in which every change of basis cancels stay what they were through fine-tuning."
    source: ClassVar[str] = "Zeng et al. 2024, arXiv 2312.04828 (HuRef); in the exactly invariant form"

    as_published: bool = False
    bands: tuple[Band, ...] = tuple(BANDS)
    last: int = 2

    def __post_init__(self) -> None:
        if self.last < 1 or not self.bands:
            raise InvalidInput(
                f"HuRef over the last {self.last} layers and {len(self.bands)} bands.",
                expected="at least 1 of each.",
                remedy="change the setting.",
            )

    @property
    def recipe(self) -> Recipe:
        """How its terms are formed."""
        return AS_PUBLISHED if self.as_published else EXACT

    def measure(self, pair: Pair) -> Finding:
        """The median over bands; parts are the mean over terms of every band."""
        bands = (Rarest(_PUBLISHED_TOKENS),) if self.as_published else self.bands
        entries = {band.name: pair.entries(band, self.recipe) for band in bands}
        entries = {name: sides for name, sides in entries.items() if len(sides[0]) >= 2}
        if not entries:
            return self.nothing("the models share no tokens")
        found: dict[str, list[TermCosine]] = {name: [] for name in entries}
        for layers in self._layers(pair):
            first, second = (BlockTerms.of(block, self.recipe) for block in pair.blocks(layers))
            for name, (ours, theirs) in entries.items():
                found[name] += [term_cosine(Layer(first, ours), Layer(second, theirs), term) for term in Term]
        means = {name: _mean(terms) for name, terms in found.items()}
        usable = {name: mean for name, mean in means.items() if not math.isnan(mean.value)}
        if not usable:
            return self.nothing("every term of one of the models is zero")
        middle = float(np.median([mean.value for mean in usable.values()]))
        deviation = max(mean.deviation for mean in usable.values())
        return Finding(self.name, middle, deviation, tuple((name, mean.value) for name, mean in usable.items()))

    def _layers(self, pair: Pair) -> tuple[tuple[int, int], ...]:
        if not self.as_published:
            return pair.layers[-self.last :]
        depths = [model.depth for model in pair.models]
        return tuple((depths[0] - k, depths[1] - k) for k in range(min(self.last, *depths), 0, -1))


def _mean(terms: list[TermCosine]) -> TermCosine:
    """Mean over terms that are not zero; their deviations are independent, since each has a rotation of its own."""
    held = [term for term in terms if not math.isnan(term.value)]
    if not held:
        return TermCosine(math.nan, math.nan)
    value = sum(term.value for term in held) / len(held)
    return TermCosine(value, math.sqrt(sum(term.deviation**2 for term in held)) / len(held))
