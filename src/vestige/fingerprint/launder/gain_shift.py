"""Shift a factor between the gains of norms and the matrices behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import norms, regained
from vestige.models.transformer.block import Norm
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class GainShift(Launder):
    """Gains multiplied by ``exp(spread * n)``, n standard normal, and what reads them divided; the head is untied."""

    claim: ClassVar[str] = "Changes every standard deviation of raw matrices at will."

    spread: float = 0.5

    def __post_init__(self) -> None:
        if self.spread <= 0:
            raise InvalidInput(f"A spread of {self.spread}.", expected="above 0.", remedy="change the setting.")

    def refusal(self, model: InMemoryTransformer) -> str:
        """There must be a norm."""
        return "" if norms(model) else "it has no norms that read the residual stream"

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Shifted."""

        def factor(norm: Norm) -> Doubles:
            return np.exp(self.spread * random.standard_normal(len(norm.gain)))

        return regained(model, factor)
