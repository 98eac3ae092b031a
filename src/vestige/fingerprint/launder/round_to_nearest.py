"""Quantise every matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import map_matrices
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class RoundToNearest(Launder):
    """Each row rounded to ``2^bits - 1`` evenly spaced values, symmetric about zero, embedding included."""

    claim: ClassVar[str] = "Quantisation at its plainest: one scale a row, nothing calibrated."
    preserves: ClassVar[bool] = False

    bits: int = 4

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise InvalidInput(f"{self.bits} bits.", expected="2 to 16.", remedy="change the setting.")

    def refusal(self, model: InMemoryTransformer) -> str:
        """Never refused."""
        return ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Quantised."""
        levels = 2 ** (self.bits - 1) - 1

        def rule(wide: Doubles) -> Doubles:
            step = np.abs(wide).max(1, keepdims=True) / levels
            step = np.where(step > 0, step, 1.0)
            return np.round(wide / step) * step

        return map_matrices(model, rule)
