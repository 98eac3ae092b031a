"""Reorder heads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import map_attention
from vestige.fingerprint.words import Rows
from vestige.models.transformer.block import Attention, Matrix
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class HeadPermutation(Launder):
    """Key-value heads in another order, and the query heads of each among themselves."""

    claim: ClassVar[str] = "Every query still meets its own key, unless heads are paired by a wrong rule."

    def refusal(self, model: InMemoryTransformer) -> str:
        """With linear position biases the place of a head decides its slope."""
        return "its heads differ by their place" if any(b.attention.alibi for b in model.blocks) else ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Reordered."""

        def rule(part: Attention) -> Attention:
            group = part.heads // part.kv_heads
            keys = random.permutation(part.kv_heads)
            queries = np.concatenate([key * group + random.permutation(group) for key in keys])

            def some(vector: Matrix | None, order: Rows) -> Matrix | None:
                return None if vector is None else _reordered(vector, order)

            return replace(
                part,
                query=_reordered(part.query, queries),
                key=_reordered(part.key, keys),
                value=_reordered(part.value, keys),
                output=np.ascontiguousarray(_reordered(np.ascontiguousarray(part.output.T), queries).T),
                query_bias=some(part.query_bias, queries),
                key_bias=some(part.key_bias, keys),
                value_bias=some(part.value_bias, keys),
            )

        return map_attention(model, rule)


def _reordered(matrix: Matrix, order: Rows) -> Matrix:
    """Rows [heads * w, ...] with whole heads in another order."""
    return np.ascontiguousarray(matrix.reshape(len(order), -1, *matrix.shape[1:])[order].reshape(matrix.shape))
