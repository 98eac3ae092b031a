"""Reorder neurons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import map_experts
from vestige.models.transformer.block import FeedForward, Matrix
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class NeuronPermutation(Launder):
    """Neurons of every feed-forward part in another order."""

    claim: ClassVar[str] = "The oldest symmetry of a network."

    def refusal(self, model: InMemoryTransformer) -> str:
        """Never refused."""
        return ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Reordered."""

        def rule(part: FeedForward) -> FeedForward:
            order = random.permutation(len(part.up))

            def some(array: Matrix | None) -> Matrix | None:
                return None if array is None else np.ascontiguousarray(array[order])

            return replace(
                part,
                up=np.ascontiguousarray(part.up[order]),
                gate=some(part.gate),
                down=np.ascontiguousarray(part.down[:, order]),
                up_bias=some(part.up_bias),
                gate_bias=some(part.gate_bias),
            )

        return map_experts(model, rule)
