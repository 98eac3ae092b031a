"""Scale neurons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import changed, changed_maybe, map_experts
from vestige.models.transformer.block import Activation, FeedForward
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class NeuronScale(Launder):
    """What a neuron reads multiplied by a factor and what it writes divided by it.

    Behind a gate the factor ``+-exp(spread * n)`` may have either sign; without one it is positive, and the
    activation must be ReLU.
    """

    claim: ClassVar[str] = "Moves norms of rows and columns at will."

    spread: float = 0.5

    def __post_init__(self) -> None:
        if self.spread <= 0:
            raise InvalidInput(f"A spread of {self.spread}.", expected="above 0.", remedy="change the setting.")

    def refusal(self, model: InMemoryTransformer) -> str:
        """A smooth activation of the scaled value is another function."""
        every = [expert for block in model.blocks for expert in block.experts]
        smooth = any(expert.gate is None and expert.activation is not Activation.RELU for expert in every)
        return "its activation does not commute with a factor" if smooth else ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Scaled."""

        def rule(part: FeedForward) -> FeedForward:
            factor = np.exp(self.spread * random.standard_normal(len(part.up)))
            if part.gate is not None:
                factor *= np.where(random.random(len(factor)) < 0.5, -1.0, 1.0)
            return replace(
                part,
                up=changed(part.up, lambda wide: wide * factor[:, None]),
                up_bias=changed_maybe(part.up_bias, lambda wide: wide * factor),
                down=changed(part.down, lambda wide: wide / factor),
            )

        return map_experts(model, rule)
