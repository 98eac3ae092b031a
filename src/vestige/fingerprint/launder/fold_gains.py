"""Fold the gains of norms into the matrices behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import norms, regained
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class FoldGains(Launder):
    """Every gain becomes 1 and multiplies the columns of what reads the norm; the head is untied."""

    claim: ClassVar[str] = "A benign step of many exporters, and enough to move the published fingerprint."

    def refusal(self, model: InMemoryTransformer) -> str:
        """A gain of zero cannot be divided out again."""
        return "a gain is zero" if any(not norm.gain.all() for norm in norms(model)) else ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Folded."""
        return regained(model, lambda norm: 1.0 / norm.gain.astype(np.float64))
