"""Reorder the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vestige.fingerprint.launder.launder import Launder, Random
from vestige.models.transformer.block import Matrix
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class VocabularyPermutation(Launder):
    """Tokens in another order, rows of embedding and head with them; the same function of the same text.

    Rows behind the last token stay where they are.
    """

    claim: ClassVar[str] = "Rows compared by number no longer belong together."

    def refusal(self, model: InMemoryTransformer) -> str:
        """Without tokens nobody could tell rows apart, nor use the model."""
        return "its tokens are not known" if model.strings is None else ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Reordered."""
        tokens = model.strings or ()
        order = np.arange(len(model.table))
        count = min(len(tokens), len(order))
        order[:count] = random.permutation(count)

        def reordered(rows: Matrix | None) -> Matrix | None:
            return None if rows is None else np.ascontiguousarray(rows[order])

        names = tuple(tokens[place] for place in order[:count]) + tokens[count:]
        return replace(
            model,
            table=np.ascontiguousarray(model.table[order]),
            own_head=reordered(model.own_head),
            own_head_bias=reordered(model.own_head_bias),
            strings=names,
        )
