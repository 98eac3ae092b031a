"""Move what norms add into the biases behind them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from vestige.fingerprint.fold import bias_through, feed_norm
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import map_blocks, map_feeds
from vestige.models.transformer.block import Block, FeedForward, Norm
from vestige.models.transformer.memory import InMemoryTransformer


def _without(norm: Norm | None) -> Norm | None:
    return None if norm is None else replace(norm, bias=None)


@dataclass(frozen=True)
class FoldBiases(Launder):
    """The biases of norms before blocks go through the matrices that read them; the last norm keeps its own."""

    claim: ClassVar[str] = "Gives biases to matrices that had none and takes them from norms."

    def refusal(self, model: InMemoryTransformer) -> str:
        """A router has no bias to take what its norm adds."""
        every = [norm for block in model.blocks for norm in (block.before_attention, block.before_feed)]
        if not any(norm is not None and norm.bias is not None for norm in every):
            return "no norm before a block has a bias"
        return "a router has no bias" if any(block.router is not None for block in model.blocks) else ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Moved."""

        def rule(block: Block) -> Block:
            part, first, second = block.attention, block.before_attention, feed_norm(block)
            attention = replace(
                part,
                query_bias=bias_through(part.query, part.query_bias, first),
                key_bias=bias_through(part.key, part.key_bias, first),
                value_bias=bias_through(part.value, part.value_bias, first),
            )

            def feed(expert: FeedForward) -> FeedForward:
                gate = expert.gate
                gate_bias = None if gate is None else bias_through(gate, expert.gate_bias, second)
                return replace(expert, up_bias=bias_through(expert.up, expert.up_bias, second), gate_bias=gate_bias)

            return replace(
                map_feeds(block, feed),
                attention=attention,
                before_attention=_without(first),
                before_feed=_without(block.before_feed),
            )

        return map_blocks(model, rule)
