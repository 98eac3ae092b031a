"""Cosine of the invariant terms with their singular values made equal."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from vestige.errors import InvalidInput
from vestige.fingerprint.evidence.evidence import Evidence, Finding
from vestige.fingerprint.pair import Pair
from vestige.fingerprint.similarity import Layer, flat_cosine, flattened
from vestige.fingerprint.terms import BlockTerms, Term
from vestige.fingerprint.words import Band, Sampled


@dataclass(frozen=True)
class FlatTerms(Evidence):
    """Mean cosine of the polar factors of the three invariant terms of the last layers.

    A term of a trained model is dominated by a few directions that follow from the data, and models trained apart on
    the same data share them: their plain cosine need not be small. Here every direction counts alike, and unrelated
    models are left with about ``1 / d``, whatever they were trained on, while offspring keeps most directions.

    Parameters
    ----------
    band : of tokens, over which singular value decompositions are affordable.
    last : pairs of matched layers from the end.
    """

    claim: ClassVar[str] = "Independent models share what the data taught, which is a few directions of many."
    source: ClassVar[str] = "Terms of Zeng et al. 2024, arXiv 2312.04828; polar factors instead of the terms"

    band: Band = field(default_factory=lambda: Sampled(1024))
    last: int = 2

    def __post_init__(self) -> None:
        if self.last < 1:
            raise InvalidInput(
                f"FlatTerms over the last {self.last} layers.", expected="at least 1.", remedy="change the setting."
            )

    def measure(self, pair: Pair) -> Finding:
        """The mean; parts are the mean over layers of every term. The deviation is that of a single term."""
        entries = pair.entries(self.band)
        if len(entries[0]) < 8:
            return self.nothing("the models share too few tokens")
        found: dict[str, list[float]] = {}
        for layers in pair.layers[-self.last :]:
            sides = [
                Layer(BlockTerms.of(block), entry) for block, entry in zip(pair.blocks(layers), entries, strict=True)
            ]
            for term in Term:
                value = flat_cosine(*(flattened(side, term) for side in sides))
                if not math.isnan(value):
                    found.setdefault(term.name.lower(), []).append(value)
        every = [value for values in found.values() for value in values]
        if not every:
            return self.nothing("every term of one of the models is zero")
        means = tuple((name, sum(values) / len(values)) for name, values in found.items())
        directions = min(pair.first.width, pair.second.width, len(entries[0]) - 1)
        return Finding(self.name, sum(every) / len(every), 1.0 / directions, means)
