"""From a similarity to a p-value: what models that have nothing in common reach.

A finding brings the deviation that its value has if weights are unrelated, by a formula. Models trained apart on like
data are closer than that, by how much only measured pairs tell. Both go into one Student statistic,

    t = (value - mean) / sqrt((deviation^2 + spread^2) (1 + 1 / n)),    n - 1 degrees of freedom,

with mean and spread over n pairs of independent models: the fewer were measured, the less a large value proves.
P-values of one pair of models depend on each other, so they are combined by the Cauchy combination test, which allows
for that (Liu and Xie 2020, JASA 115).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtr

from vestige.errors import InvalidInput
from vestige.fingerprint.evidence.evidence import Finding

_MOST = 0.99
"""Larger p-values count as this one: a value far below the mean is no evidence for common descent, nor against."""


@dataclass(frozen=True)
class Floor:
    """Mean and standard deviation of one kind of evidence over ``pairs`` pairs of independent models."""

    mean: float
    spread: float
    pairs: int

    def __post_init__(self) -> None:
        if self.pairs < 2 or self.spread < 0 or not math.isfinite(self.mean + self.spread):
            raise InvalidInput(
                f"A floor of mean {self.mean} and spread {self.spread} over {self.pairs} pairs.",
                expected="finite numbers over at least 2 pairs.",
                remedy="measure more pairs of independent models.",
            )


@dataclass(frozen=True)
class Calibration:
    """What independent models reach, by the name of the evidence; ``other`` holds for evidence that is not listed."""

    floors: tuple[tuple[str, Floor], ...]
    other: Floor
    source: str

    def floor(self, evidence: str) -> Floor:
        """The floor of one kind of evidence."""
        return dict(self.floors).get(evidence, self.other)

    def p_value(self, finding: Finding) -> float | None:
        """Probability that independent models are at least as similar; None where the finding has no value."""
        if finding.value is None:
            return None
        floor = self.floor(finding.evidence)
        scale = math.sqrt((finding.deviation**2 + floor.spread**2) * (1.0 + 1.0 / floor.pairs))
        excess = finding.value - floor.mean
        if scale == 0:
            return 0.0 if excess > 0 else 1.0
        return float(stdtr(floor.pairs - 1, -excess / scale))


def combined(p_values: Sequence[float]) -> float:
    """One p-value for several that may depend on each other, in (0, 1]; 1 where there are none."""
    if not p_values:
        return 1.0
    tiny = 1e-300
    mean = sum(1.0 / math.tan(math.pi * min(max(p, tiny), _MOST)) for p in p_values) / len(p_values)
    return max(math.atan2(1.0, mean) / math.pi, tiny)


_ROOTS = 10
"""Pairs of roots of the measured family; its other pairs of strangers descend from these and count for no more."""

MEASURED = Calibration(
    (
        ("HuRef", Floor(0.45, 0.36, _ROOTS)),
        ("FlatTerms", Floor(0.02, 0.016, _ROOTS)),
        ("SketchedTerms", Floor(0.46, 0.36, _ROOTS)),
        ("LayerSketches", Floor(0.017, 0.027, _ROOTS)),
        ("AlignedCKA", Floor(0.36, 0.08, _ROOTS)),
        ("AlignedCosine", Floor(0.24, 0.08, _ROOTS)),
        ("ProductSpectra", Floor(0.13, 0.11, _ROOTS)),
        ("StrengthCurves", Floor(0.4, 0.25, _ROOTS)),
    ),
    Floor(0.0, 0.2, 6),
    "264 pairs of strangers in the family of vestige.zoo.train_family, most of them trained on the same text, three "
    "roots on the same batches; StrengthCurves, which six layers are too few for, and unlisted evidence are assumed",
)
"""Tiny models that saw little text are much alike in what the text taught all of them, so these floors are high."""
