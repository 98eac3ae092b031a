"""Cosine of weights after everything that hides their likeness has been undone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.fingerprint.evidence.aligned_cka import cosine, haar_deviation, unalignable
from vestige.fingerprint.evidence.evidence import Evidence, Finding
from vestige.fingerprint.features import Product, products
from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.pair import Pair


def traceless(gram: Doubles) -> Doubles:
    """A Gram matrix [d, d] without the part that no rotation changes."""
    return gram - np.eye(len(gram)) * (np.trace(gram) / len(gram))


@dataclass(frozen=True)
class AlignedCosine(Evidence):
    """Mean over layers of the cosine of products of matrices in one basis of the residual stream.

    The parameter cosine that fine-tuned models are known by fails under any reordering; here both models stand in the
    first's basis and inner bases have cancelled. Gates enter by their Gram matrix without its trace. Had the second
    model's basis nothing to do with the first's, a cosine would have mean 0 and at most the deviation of a Gram matrix.

    Parameters
    ----------
    layers : pairs of matched layers at most, evenly spread.
    """

    claim: ClassVar[str] = "Weights move little in training, once both models are put into one basis."
    source: ClassVar[str] = "Parameter cosine of Zeng et al. 2024, arXiv 2312.04828, after alignment"

    layers: int = 4

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise InvalidInput(
                f"AlignedCosine over {self.layers} layers.", expected="at least 1.", remedy="change the setting."
            )

    def measure(self, pair: Pair) -> Finding:
        """The mean; parts are the mean over layers of every product."""
        reason = unalignable(pair)
        if reason:
            return self.nothing(reason)
        found: dict[str, list[float]] = {}
        for layers in pair.some_layers(self.layers):
            ours, theirs = (products(*side) for side in zip(pair.blocks(layers), pair.alignment.unused, strict=True))
            for kind in [kind for kind in ours if kind in theirs]:
                sides = [side.astype(np.float64) for side in (ours[kind], pair.alignment.both_across(theirs[kind]))]
                value = cosine(*(traceless(side) if kind is Product.GATES else side for side in sides))
                if not math.isnan(value):
                    found.setdefault(kind.value, []).append(value)
        every = [value for values in found.values() for value in values]
        if not every:
            return self.nothing("the matrices of one of the models are zero")
        means = tuple((name, sum(values) / len(values)) for name, values in found.items())
        deviation = haar_deviation(pair.first.width) / math.sqrt(len(every))
        return Finding(self.name, sum(every) / len(every), deviation, means)
