"""Insert copies of layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from vestige.errors import InvalidInput
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class RepeatLayers(Launder):
    """``count`` layers drawn at random stand twice, one copy after the other."""

    claim: ClassVar[str] = "Depth upscaling before it is trained on."
    preserves: ClassVar[bool] = False

    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidInput(f"{self.count} layers.", expected="at least 1.", remedy="change the setting.")

    def refusal(self, model: InMemoryTransformer) -> str:
        """There must be so many layers."""
        return "" if self.count <= len(model.blocks) else f"it has only {len(model.blocks)} layers"

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Deeper."""
        twice = set(random.permutation(len(model.blocks))[: self.count].tolist())
        blocks = [block for place, block in enumerate(model.blocks) for _ in range(2 if place in twice else 1)]
        return replace(model, blocks=tuple(blocks))
