"""Add tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import narrow
from vestige.models.transformer.block import Matrix
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class ExtendVocabulary(Launder):
    """``count`` new tokens at the end, their rows drawn with the mean and deviation of the others."""

    claim: ClassVar[str] = "Old tokens keep their rows; only a sum over all of them changes."
    preserves: ClassVar[bool] = False

    count: int = 16

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidInput(f"{self.count} tokens.", expected="at least 1.", remedy="change the setting.")

    def refusal(self, model: InMemoryTransformer) -> str:
        """New rows need names."""
        whole = model.strings is not None and len(model.strings) == len(model.table)
        return "" if whole else "not every row of its embedding has a token"

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Extended."""

        def longer(table: Matrix) -> Matrix:
            drawn = random.standard_normal((self.count, table.shape[1])) * table.std(0) + table.mean(0)
            return np.concatenate([table, narrow(drawn)])

        bias = None if model.own_head_bias is None else np.pad(model.own_head_bias, (0, self.count))
        added = tuple(f"<added-{place}>" for place in range(self.count))
        return replace(
            model,
            table=longer(model.table),
            own_head=None if model.own_head is None else longer(model.own_head),
            own_head_bias=bias,
            strings=(model.strings or ()) + added,
        )
