"""Add to the biases of keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import map_attention, narrow
from vestige.models.transformer.block import Attention
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class KeyBias(Launder):
    """Any vector added to the keys of a head: each query's scores all change by the same amount.

    Parameters
    ----------
    scale : standard deviation of what is added.
    """

    claim: ClassVar[str] = "Without rotary positions a key's bias has no effect and is free to be anything."

    scale: float = 1.0

    def refusal(self, model: InMemoryTransformer) -> str:
        """Positions that turn keys, a norm of keys or a cap on scores make a bias count."""
        every = [block.attention for block in model.blocks]
        if any(part.cap is not None for part in every):
            return "its scores are capped"
        counts = any(part.rotary is not None or part.key_norm is not None for part in every)
        return "its keys are turned or normalised after their bias" if counts else ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """With other biases."""

        def rule(part: Attention) -> Attention:
            old = np.zeros(len(part.key), np.float32) if part.key_bias is None else part.key_bias
            return replace(part, key_bias=narrow(old + self.scale * random.standard_normal(len(old))))

        return map_attention(model, rule)
