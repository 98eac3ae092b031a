"""Add noise to every matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.errors import InvalidInput
from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import map_matrices
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class Noise(Launder):
    """Normal noise of ``level`` times the standard deviation of each matrix, embedding included."""

    claim: ClassVar[str] = "The plainest way to move weights; harms the model long before it hides them."
    preserves: ClassVar[bool] = False

    level: float = 0.1

    def __post_init__(self) -> None:
        if self.level < 0:
            raise InvalidInput(f"Noise of level {self.level}.", expected="0 or more.", remedy="change the setting.")

    def refusal(self, model: InMemoryTransformer) -> str:
        """Never refused."""
        return ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """With noise."""

        def rule(wide: Doubles) -> Doubles:
            return wide + self.level * wide.std() * random.standard_normal(wide.shape)

        return map_matrices(model, rule)
