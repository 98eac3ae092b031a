"""Reorder the residual stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import Rule
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class ResidualPermutation(Launder):
    """Entries of the residual stream in another order, in every matrix, gain and bias alike."""

    claim: ClassVar[str] = "Breaks the cosine of parameters entirely; every kind of norm commutes with it."

    def refusal(self, model: InMemoryTransformer) -> str:
        """Never refused."""
        return ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Reordered."""
        order = random.permutation(model.width)
        return Rule(*[lambda array: array[..., order]] * 4).whole(model)
