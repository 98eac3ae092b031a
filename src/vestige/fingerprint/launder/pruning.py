"""Set small weights to zero."""

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
class Pruning(Launder):
    """The smallest ``share`` of every matrix by magnitude set to zero, embedding included."""

    claim: ClassVar[str] = "Unstructured magnitude pruning, without training afterwards."
    preserves: ClassVar[bool] = False

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise InvalidInput(f"A share of {self.share}.", expected="0 up to below 1.", remedy="change the setting.")

    def refusal(self, model: InMemoryTransformer) -> str:
        """Never refused."""
        return ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Pruned."""

        def rule(wide: Doubles) -> Doubles:
            return np.where(np.abs(wide) < np.quantile(np.abs(wide), self.share), 0.0, wide)

        return map_matrices(model, rule)
