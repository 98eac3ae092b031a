"""Change the basis of the queries and keys of every head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import map_attention, narrow
from vestige.fingerprint.launder.value_basis import invertible
from vestige.models.transformer.block import Attention, Matrix, Pairing, Rotary
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class QueryKeyBasis(Launder):
    """Keys of each head multiplied by a matrix that positions commute with, queries by its inverse transpose.

    Where positions turn pairs of entries, each pair is turned and scaled; entries that they leave alone, and all
    entries of a model without rotary positions, are multiplied by any invertible matrix.

    Parameters
    ----------
    spread : of the log scales.
    """

    claim: ClassVar[str] = "Leaves the products of queries and keys, and neither of them."

    spread: float = 0.5

    def __post_init__(self) -> None:
        if self.spread < 0:
            raise InvalidInput(f"A spread of {self.spread}.", expected="0 or more.", remedy="change the setting.")

    def refusal(self, model: InMemoryTransformer) -> str:
        """Head norms fix lengths and gains."""
        normed = any(b.attention.query_norm is not None or b.attention.key_norm is not None for b in model.blocks)
        return "its queries and keys have a norm of their own" if normed else ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """With other bases."""

        def rule(part: Attention) -> Attention:
            width = len(part.key) // part.kv_heads
            bases = np.stack([self._basis(part.rotary, width, random) for _ in range(part.kv_heads)])
            duals = np.repeat(np.linalg.inv(bases).transpose(0, 2, 1), part.heads // part.kv_heads, axis=0)
            return replace(
                part,
                query=_headwise(duals, part.query),
                key=_headwise(bases, part.key),
                query_bias=None if part.query_bias is None else _headwise(duals, part.query_bias),
                key_bias=None if part.key_bias is None else _headwise(bases, part.key_bias),
            )

        return map_attention(model, rule)

    def _basis(self, rotary: Rotary | None, width: int, random: Random) -> Doubles:
        turned = 0 if rotary is None else rotary.width
        basis = np.eye(width)
        if turned < width:
            basis[turned:, turned:] = invertible(random, width - turned, self.spread)
        if rotary is None:
            return basis
        half = turned // 2
        first = np.arange(half) if rotary.pairing is Pairing.HALVES else 2 * np.arange(half)
        second = first + half if rotary.pairing is Pairing.HALVES else first + 1
        angle, scale = 2 * np.pi * random.random(half), np.exp(self.spread * random.standard_normal(half))
        basis[first, first] = basis[second, second] = scale * np.cos(angle)
        basis[first, second], basis[second, first] = -scale * np.sin(angle), scale * np.sin(angle)
        return basis


def _headwise(bases: Doubles, matrix: Matrix) -> Matrix:
    """Matrix or bias [heads * w, ...] with each head multiplied by its matrix [w, w]."""
    heads = matrix.reshape(len(bases), bases.shape[1], -1)
    return narrow((bases @ heads).reshape(matrix.shape))
