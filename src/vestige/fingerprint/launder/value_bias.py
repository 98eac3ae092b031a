"""Move bias from the output of attention to its values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import map_attention, narrow
from vestige.models.transformer.block import Attention
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class ValueBias(Launder):
    """Any vector added to the values, and what it becomes taken off the output: attention weights sum to 1.

    Parameters
    ----------
    scale : standard deviation of what is added.
    """

    claim: ClassVar[str] = "Two biases that add up can be split in any way."

    scale: float = 1.0

    def refusal(self, model: InMemoryTransformer) -> str:
        """Never refused."""
        return ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """With other biases."""

        def rule(part: Attention) -> Attention:
            groups = part.kv_heads
            added = self.scale * random.standard_normal((groups, len(part.value) // groups))
            met = part.output.astype(np.float64) @ np.repeat(added, part.heads // groups, axis=0).ravel()
            value = 0.0 if part.value_bias is None else part.value_bias
            output = 0.0 if part.output_bias is None else part.output_bias
            return replace(part, value_bias=narrow(value + added.ravel()), output_bias=narrow(output - met))

        return map_attention(model, rule)
