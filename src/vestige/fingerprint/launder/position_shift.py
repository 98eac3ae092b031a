"""Move a vector from the embedding to the positions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import changed, changed_maybe, untied
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class PositionShift(Launder):
    """One vector added to every token's row and taken off every position's; the head is untied.

    Parameters
    ----------
    scale : length of the vector relative to the mean row's root mean square length.
    """

    claim: ClassVar[str] = "Gives all tokens a common part that double centring has to take off."

    scale: float = 1.0

    def refusal(self, model: InMemoryTransformer) -> str:
        """There must be learned positions."""
        return "it has no learned positions" if model.learned_positions is None else ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Moved."""
        own = untied(model)
        vector = random.standard_normal(own.table.shape[1]) * self.scale * float(own.table.std())
        return replace(
            own,
            table=changed(own.table, lambda wide: wide + vector),
            learned_positions=changed_maybe(own.learned_positions, lambda wide: wide - vector),
        )
