"""Reorder experts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import map_blocks
from vestige.models.transformer.block import Block
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class ExpertPermutation(Launder):
    """Experts of every mixture in another order, the rows of the router with them."""

    claim: ClassVar[str] = "Nothing but the router knows which expert is which."

    def refusal(self, model: InMemoryTransformer) -> str:
        """There must be experts."""
        return "it has no mixtures of experts" if all(block.router is None for block in model.blocks) else ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Reordered."""

        def rule(block: Block) -> Block:
            if block.router is None:
                return block
            order = random.permutation(len(block.experts))
            experts = tuple(block.experts[place] for place in order)
            return replace(block, experts=experts, router=np.ascontiguousarray(block.router[order]))

        return map_blocks(model, rule)
