"""One rule applied to all that reads the residual stream of a model and to all that writes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from vestige.fingerprint.fold import Doubles
from vestige.models.transformer.block import Attention, Block, FeedForward, Matrix, Norm
from vestige.models.transformer.memory import InMemoryTransformer

Wide = Callable[[Doubles], Doubles]


def norms(model: InMemoryTransformer) -> tuple[Norm, ...]:
    """All norms that read the residual stream."""
    every = [norm for block in model.blocks for norm in (block.before_attention, block.before_feed)]
    return tuple(norm for norm in (*every, model.last_norm) if norm is not None)


def norms_after(model: InMemoryTransformer) -> tuple[Norm, ...]:
    """All norms on what is written to the residual stream, the embedding's among them."""
    every = [norm for block in model.blocks for norm in (block.after_attention, block.after_feed)]
    return tuple(norm for norm in (*every, model.first_norm) if norm is not None)


def narrow(array: Doubles) -> Matrix:
    """Computed in float64, kept in float32."""
    return np.ascontiguousarray(array, dtype=np.float32)


def changed(array: Matrix, rule: Wide) -> Matrix:
    """An array under a rule that is applied in float64."""
    return narrow(rule(array.astype(np.float64)))


def changed_maybe(array: Matrix | None, rule: Wide) -> Matrix | None:
    """As :func:`changed`, where there is an array."""
    return None if array is None else changed(array, rule)


def changed_norm(norm: Norm | None, gain: Wide, bias: Wide) -> Norm | None:
    """A norm with its gain and bias changed, where there is one."""
    if norm is None:
        return None
    return replace(norm, gain=changed(norm.gain, gain), bias=changed_maybe(norm.bias, bias))


def _same(array: Doubles) -> Doubles:
    return array


@dataclass(frozen=True)
class Rule:
    """What happens to every array that touches the residual stream.

    Parameters
    ----------
    reads : of matrices [r, d] that multiply the residual stream.
    writes : of rows [n, d] that are added to it: the table, positions, biases, and matrices transposed.
    gain, bias : of norms [d].
    """

    reads: Wide = _same
    writes: Wide = _same
    gain: Wide = _same
    bias: Wide = _same

    def norm(self, norm: Norm | None) -> Norm | None:
        """A norm under the rule."""
        return changed_norm(norm, self.gain, self.bias)

    def added(self, bias: Matrix | None) -> Matrix | None:
        """A vector [d] that is added to the residual stream."""
        return changed_maybe(bias, lambda vector: self.writes(vector[None])[0])

    def written(self, matrix: Matrix) -> Matrix:
        """A matrix [d, r] that writes to the residual stream."""
        return changed(matrix, lambda wide: self.writes(wide.T).T)

    def attention(self, part: Attention) -> Attention:
        """Attention under the rule."""
        return replace(
            part,
            query=changed(part.query, self.reads),
            key=changed(part.key, self.reads),
            value=changed(part.value, self.reads),
            output=self.written(part.output),
            output_bias=self.added(part.output_bias),
        )

    def feed(self, part: FeedForward) -> FeedForward:
        """A feed-forward part under the rule."""
        return replace(
            part,
            up=changed(part.up, self.reads),
            gate=changed_maybe(part.gate, self.reads),
            down=self.written(part.down),
            down_bias=self.added(part.down_bias),
        )

    def block(self, block: Block) -> Block:
        """A block under the rule."""
        return replace(
            block,
            attention=self.attention(block.attention),
            experts=tuple(self.feed(expert) for expert in block.experts),
            shared=None if block.shared is None else self.feed(block.shared),
            router=changed_maybe(block.router, self.reads),
            shared_gate=changed_maybe(block.shared_gate, self.reads),
            before_attention=self.norm(block.before_attention),
            before_feed=self.norm(block.before_feed),
            after_attention=self.norm(block.after_attention),
            after_feed=self.norm(block.after_feed),
        )

    def whole(self, model: InMemoryTransformer) -> InMemoryTransformer:
        """A model under the rule. A head that is the table again reads as the table writes."""
        return replace(
            model,
            blocks=tuple(self.block(block) for block in model.blocks),
            table=changed(model.table, self.writes),
            learned_positions=changed_maybe(model.learned_positions, self.writes),
            first_norm=self.norm(model.first_norm),
            last_norm=self.norm(model.last_norm),
            own_head=changed_maybe(model.own_head, self.reads),
        )


def untied(model: InMemoryTransformer) -> InMemoryTransformer:
    """The same model with a head of its own."""
    if model.own_head is not None:
        return model
    return replace(model, own_head=changed(model.table, lambda wide: wide / model.scale))


def map_blocks(model: InMemoryTransformer, rule: Callable[[Block], Block]) -> InMemoryTransformer:
    """The model with every block changed."""
    return replace(model, blocks=tuple(rule(block) for block in model.blocks))


def map_feeds(block: Block, rule: Callable[[FeedForward], FeedForward]) -> Block:
    """The block with every feed-forward part changed, that of all tokens among them."""
    shared = None if block.shared is None else rule(block.shared)
    return replace(block, experts=tuple(rule(expert) for expert in block.experts), shared=shared)


def scaled_reads(block: Block, attention: Doubles, feed: Doubles) -> Block:
    """The block with the columns of all that reads behind its two norms multiplied by factors [d]."""

    def feed_reads(matrix: Matrix) -> Matrix:
        return changed(matrix, lambda wide: wide * feed)

    def feed_part(part: FeedForward) -> FeedForward:
        return replace(part, up=feed_reads(part.up), gate=None if part.gate is None else feed_reads(part.gate))

    part = block.attention
    query, key, value = (changed(m, lambda wide: wide * attention) for m in (part.query, part.key, part.value))
    return replace(
        map_feeds(block, feed_part),
        attention=replace(part, query=query, key=key, value=value),
        router=None if block.router is None else feed_reads(block.router),
        shared_gate=None if block.shared_gate is None else feed_reads(block.shared_gate),
    )


def regained(model: InMemoryTransformer, shift: Callable[[Norm], Doubles]) -> InMemoryTransformer:
    """The same model with every reading norm's gain and bias multiplied by a factor [d] and what reads it divided."""

    def moved(norm: Norm | None, factor: Doubles) -> Norm | None:
        return changed_norm(norm, lambda gain: gain * factor, lambda bias: bias * factor)

    def of_block(block: Block) -> Block:
        factors = [
            np.ones(model.width) if norm is None else shift(norm)
            for norm in (block.before_attention, block.before_feed)
        ]
        first, second = factors[0], factors[0] if block.before_feed is None else factors[1]
        return replace(
            scaled_reads(block, 1.0 / first, 1.0 / second),
            before_attention=moved(block.before_attention, first),
            before_feed=moved(block.before_feed, second),
        )

    inner = map_blocks(model, of_block)
    if inner.last_norm is None:
        return inner
    last, own = shift(inner.last_norm), untied(inner)
    head = changed_maybe(own.own_head, lambda wide: wide / last)
    return replace(own, last_norm=moved(inner.last_norm, last), own_head=head)


def map_attention(model: InMemoryTransformer, rule: Callable[[Attention], Attention]) -> InMemoryTransformer:
    """The model with every attention changed."""
    return map_blocks(model, lambda block: replace(block, attention=rule(block.attention)))


def map_experts(model: InMemoryTransformer, rule: Callable[[FeedForward], FeedForward]) -> InMemoryTransformer:
    """The model with every feed-forward part changed."""
    return map_blocks(model, lambda block: map_feeds(block, rule))


def map_matrices(model: InMemoryTransformer, rule: Wide) -> InMemoryTransformer:
    """The model with every matrix changed, embedding and head among them; gains, biases and routers stay."""

    def attention(part: Attention) -> Attention:
        query, key, value, output = (changed(m, rule) for m in (part.query, part.key, part.value, part.output))
        return replace(part, query=query, key=key, value=value, output=output)

    def feed(part: FeedForward) -> FeedForward:
        return replace(
            part, up=changed(part.up, rule), gate=changed_maybe(part.gate, rule), down=changed(part.down, rule)
        )

    inner = map_experts(map_attention(model, attention), feed)
    return replace(inner, table=changed(model.table, rule), own_head=changed_maybe(model.own_head, rule))
