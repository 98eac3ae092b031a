"""Scale the residual stream."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from vestige.errors import InvalidInput
from vestige.fingerprint.fold import Doubles
from vestige.fingerprint.launder.launder import Launder, Random
from vestige.fingerprint.launder.rule import changed, changed_maybe, changed_norm, map_blocks, map_feeds, untied
from vestige.models.transformer.block import Block, FeedForward, Matrix, Norm
from vestige.models.transformer.memory import InMemoryTransformer


@dataclass(frozen=True)
class ResidualScale(Launder):
    """All that is written multiplied by one factor, which every norm takes out again; the head is untied.

    What a norm adds to the mean square is multiplied by the factor's square, so that nothing at all changes.
    """

    claim: ClassVar[str] = "Moves every length at once; directions stay."

    factor: float = 3.0

    def __post_init__(self) -> None:
        if self.factor <= 0:
            raise InvalidInput(f"A factor of {self.factor}.", expected="above 0.", remedy="change the setting.")

    def refusal(self, model: InMemoryTransformer) -> str:
        """Whatever reads the residual stream must read it through a norm."""
        bare = any(block.before_attention is None for block in model.blocks) or model.last_norm is None
        return "something reads the residual stream without a norm" if bare else ""

    def change(self, model: InMemoryTransformer, random: Random) -> InMemoryTransformer:
        """Scaled."""
        model = untied(model)
        inner = replace(map_blocks(model, self._block), last_norm=self._reading(model.last_norm))
        if model.first_norm is not None:  # what is written first is written by this norm
            return replace(inner, first_norm=changed_norm(model.first_norm, self._times, self._times))
        positions = changed_maybe(model.learned_positions, self._times)
        return replace(inner, table=changed(model.table, self._times), learned_positions=positions)

    def _times(self, array: Doubles) -> Doubles:
        return array * self.factor

    def _reading(self, norm: Norm | None) -> Norm | None:
        return None if norm is None else replace(norm, epsilon=norm.epsilon * self.factor**2)

    def _writing(self, matrix: Matrix, bias: Matrix | None, after: Norm | None) -> tuple[Matrix, Matrix | None]:
        """A matrix and bias that write, unless a norm after them takes the factor."""
        if after is not None:
            return matrix, bias
        return changed(matrix, self._times), changed_maybe(bias, self._times)

    def _block(self, block: Block) -> Block:
        part = block.attention
        output, output_bias = self._writing(part.output, part.output_bias, block.after_attention)

        def feed(expert: FeedForward) -> FeedForward:
            down, down_bias = self._writing(expert.down, expert.down_bias, block.after_feed)
            return replace(expert, down=down, down_bias=down_bias)

        return replace(
            map_feeds(block, feed),
            attention=replace(part, output=output, output_bias=output_bias),
            before_attention=self._reading(block.before_attention),
            before_feed=self._reading(block.before_feed),
            after_attention=changed_norm(block.after_attention, self._times, self._times),
            after_feed=changed_norm(block.after_feed, self._times, self._times),
        )
