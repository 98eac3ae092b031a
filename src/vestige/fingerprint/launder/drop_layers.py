"""Leave layers out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from vestige.errors import InvalidInput
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class DropLayers(Launder):
    """``count`` layers left out at random, neither the first nor the last."""

    claim: ClassVar[str] = "Depth pruning: the layers that stay are what they were."
    preserves: ClassVar[bool] = False

    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidInput(f"{self.count} layers.", expected="at least 1.", remedy="change the setting.")

    def refusal(self, model: InMemoryTransformer) -> str:
        """The first and the last layer stay."""
        return "" if self.count <= len(model.blocks) - 2 else f"it has only {len(model.blocks)} layers"

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Shallower."""
        gone = set((1 + random.permutation(len(model.blocks) - 2)[: self.count]).tolist())
        return replace(model, blocks=tuple(block for place, block in enumerate(model.blocks) if place not in gone))
