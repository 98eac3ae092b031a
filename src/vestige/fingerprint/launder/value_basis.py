"""Change the basis of the values of every head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.residual_rotation import orthogonal
from vestige.fingerprint.launder.rule import map_attention, narrow
from vestige.models.transformer.block import Attention
from vestige.models.transformer.memory import InMemoryTransformer


def invertible(random: Random, width: int, spread: float) -> Doubles:
    """A matrix [w, w] with Haar-random singular vectors and log-normal singular values."""
    values = np.exp(spread * random.standard_normal(width))
    return (orthogonal(random, width) * values) @ orthogonal(random, width)


@dataclass(frozen=True)
class ValueBasis(Launder):
    """Values of each key-value head multiplied by any invertible matrix, which the output matrix takes back.

    Parameters
    ----------
    spread : of the log singular values of that matrix.
    """

    claim: ClassVar[str] = "Leaves the product of value and output matrix, and neither of them."

    spread: float = 0.5

    def __post_init__(self) -> None:
        if self.spread < 0:
            raise InvalidInput(f"A spread of {self.spread}.", expected="0 or more.", remedy="change the setting.")

    def refusal(self, model: InMemoryTransformer) -> str:
        """Never refused."""
        return ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """With other bases."""

        def rule(part: Attention) -> Attention:
            groups, width = part.kv_heads, len(part.value) // part.kv_heads
            bases = np.stack([invertible(random, width, self.spread) for _ in range(groups)])
            value = bases @ part.value.reshape(groups, width, -1)
            bias = None if part.value_bias is None else bases @ part.value_bias.reshape(groups, width, 1)
            back = np.repeat(np.linalg.inv(bases), part.heads // groups, axis=0)
            output = part.output.reshape(len(part.output), part.heads, width).transpose(1, 0, 2) @ back
            return replace(
                part,
                value=narrow(value.reshape(part.value.shape)),
                value_bias=None if bias is None else narrow(bias.ravel()),
                output=narrow(output.transpose(1, 0, 2).reshape(part.output.shape)),
            )

        return map_attention(model, rule)
