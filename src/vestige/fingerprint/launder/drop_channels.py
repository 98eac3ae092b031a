"""Leave entries of the residual stream out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import Rule
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class DropChannels(Launder):
    """``share`` of the entries of the residual stream left out at random in every matrix, gain and bias."""

    claim: ClassVar[str] = "Width pruning: terms over tokens keep their size, weights do not."
    preserves: ClassVar[bool] = False

    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InvalidInput(f"A share of {self.share}.", expected="above 0, below 1.", remedy="change the setting.")

    def refusal(self, model: InMemoryTransformer) -> str:
        """Something must be left."""
        return "" if round(model.width * (1 - self.share)) >= 2 else "its residual stream is too narrow"

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Narrower."""
        width = model.width
        kept = np.sort(random.permutation(width)[: round(width * (1 - self.share))])
        return Rule(*[lambda array: array[..., kept]] * 4).whole(model)
