"""Add an update of low rank to every matrix, as adapters do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import map_matrices
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class LowRankUpdate(Launder):
    """A product of two normal matrices added to each matrix of the blocks.

    Parameters
    ----------
    rank : of the update.
    length : its Frobenius norm relative to the matrix.
    """

    claim: ClassVar[str] = "What merging an adapter of rank r does to weights, in a random direction."
    preserves: ClassVar[bool] = False

    rank: int = 8
    length: float = 0.1

    def __post_init__(self) -> None:
        if self.rank < 1 or self.length < 0:
            raise InvalidInput(
                f"An update of rank {self.rank} and length {self.length}.",
                expected="rank 1 or more and length 0 or more.",
                remedy="change the setting.",
            )

    def refusal(self, model: InMemoryTransformer) -> str:
        """Never refused."""
        return ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Updated; embedding and head stay."""

        def rule(wide: Doubles) -> Doubles:
            update = random.standard_normal((wide.shape[0], self.rank)) @ random.standard_normal(
                (self.rank, wide.shape[1])
            )
            return wide + update * (self.length * float(np.linalg.norm(wide)) / float(np.linalg.norm(update)))

        return replace(map_matrices(model, rule), table=model.table, own_head=model.own_head)
