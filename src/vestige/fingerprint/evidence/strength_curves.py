"""How strong each layer is, as curves over depth, with gains folded in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.fingerprint.evidence.evidence import Evidence, Finding
from vestige.fingerprint.pair import Pair


@dataclass(frozen=True)
class StrengthCurves(Evidence):
    """Correlation of the steps from layer to layer of the log norms of a block's products.

    The published curves are standard deviations of raw matrices, which shifting a factor from a matrix to the gain
    before it changes at will; here gains are folded and products taken, so that no symmetry moves them. Steps are
    compared instead of levels, since the levels of all models of one make rise and fall alike.

    Parameters
    ----------
    least : pairs of layers below which there is no answer.
    """

    claim: ClassVar[str] = "Which layers grew strong is set early in training and kept by fine-tuning."
    source: ClassVar[str] = "Yoon et al. 2025, arXiv 2507.03014, with everything folded"
    needs_weights: ClassVar[bool] = False

    least: int = 8

    def __post_init__(self) -> None:
        if self.least < 4:
            raise InvalidInput(
                f"StrengthCurves from {self.least} layers on.", expected="at least 4.", remedy="change the setting."
            )

    def measure(self, pair: Pair) -> Finding:
        """The mean correlation over the three products, which are the parts."""
        if not min(len(pair.first.strengths), len(pair.second.strengths)):
            return self.nothing("a card holds no strengths")
        if len(pair.layers) < self.least:
            return self.nothing(f"{len(pair.layers)} layers are too few for a curve")
        ours, theirs = (list(side) for side in zip(*pair.layers, strict=True))
        steps = np.diff(pair.first.strengths[ours], axis=0), np.diff(pair.second.strengths[theirs], axis=0)
        first, second = (side - side.mean(0) for side in steps)
        lengths = np.sqrt((first**2).sum(0) * (second**2).sum(0))
        told = lengths > 0
        if not told.any():
            return self.nothing("all layers are equally strong")
        values = (first * second).sum(0)[told] / lengths[told]
        names = np.array(["scores", "values", "feed"])[told]
        parts = tuple((str(name), float(value)) for name, value in zip(names, values, strict=True))
        # A correlation of n points of mean zero has variance 1 / (n - 1); n steps come from n + 1 layers.
        deviation = 1.0 / math.sqrt((len(ours) - 2) * len(values))
        return Finding(self.name, float(values.mean()), deviation, parts)
