"""Add constants that a LayerNorm takes away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.launder.fold_means import FoldMeans
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import Rule, untied
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class MeanShift(Launder):
    """Each row that is written to the residual stream gets a constant of its own in all entries; the head is untied.

    Parameters
    ----------
    scale : standard deviation of the constants relative to that of the row.
    """

    claim: ClassVar[str] = "The direction of all ones is invisible behind a LayerNorm and free to carry anything."

    scale: float = 1.0

    def refusal(self, model: InMemoryTransformer) -> str:
        """Every reader must take the mean away."""
        return FoldMeans().refusal(model)

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """With other means."""

        def shift(array: Doubles) -> Doubles:
            return array + self.scale * random.standard_normal((len(array), 1)) * array.std(1, keepdims=True)

        return Rule(writes=shift).whole(untied(model))
