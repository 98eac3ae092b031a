"""A block as it acts on the residual stream: gains, mean subtraction and head norms moved into the matrices.

``norm(x) = gain * x / rms(x)`` before a matrix W acts as ``W diag(gain)`` after a norm without gain; a LayerNorm also
takes the mean away, ``C = I - 1 1^T / d``, which becomes ``W diag(gain) C``. What a block writes is read by norms of
the same kind, so its mean is lost as well and is taken away here. A head norm leaves the length of what it reads
without effect, so its head is scaled to length one before the head norm's gain is multiplied in. The result is the
same for every way to spread a function over gains, means and matrices, but for directions that nothing is written to:
what reads them may read anything. A LayerNorm model whose mean was folded away has one, wherever it is rotated to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.models.transformer.block import Block, FeedForward, Matrix, Norm, NormKind

Doubles = npt.NDArray[np.float64]


def gain_of(norm: Norm | None, width: int) -> Matrix:
    """What the norm multiplies with [d]; ones where there is no norm."""
    return np.ones(width, np.float32) if norm is None else norm.gain


def without_mean(matrix: Matrix, axis: int) -> Matrix:
    """The matrix without its mean along an axis; means are summed in float64, so that every machine rounds alike."""
    return matrix - matrix.mean(axis, keepdims=True, dtype=np.float64).astype(np.float32)


def read_through(matrix: Matrix, norm: Norm | None) -> Matrix:
    """``matrix`` [out, d] behind a norm: gain and mean subtraction folded into its columns."""
    if norm is None:
        return matrix
    folded = matrix * norm.gain
    return without_mean(folded, 1) if norm.kind is NormKind.LAYER else folded


def bias_through(matrix: Matrix, bias: Matrix | None, norm: Norm | None) -> Matrix | None:
    """The bias [out] behind a norm: what the norm adds goes through the matrix."""
    if norm is None or norm.bias is None:
        return bias
    moved = matrix @ norm.bias
    return moved if bias is None else bias + moved


def written_through(matrix: Matrix, after: Norm | None, centred: bool) -> Matrix:
    """``matrix`` [d, in] before a norm on what is added, and before readers that lose the mean where ``centred``."""
    if after is not None:
        inside = without_mean(matrix, 0) if after.kind is NormKind.LAYER else matrix
        matrix = inside * after.gain[:, None]
    return without_mean(matrix, 0) if centred else matrix


def feed_norm(block: Block) -> Norm | None:
    """The norm that the feed-forward part reads through: its own, or the one it shares with attention."""
    return block.before_attention if block.before_feed is None else block.before_feed


def feeds(block: Block) -> Iterator[FeedForward]:
    """All feed-forward parts of a block, one at a time: its experts, and the one that every token goes through."""
    yield from block.experts
    if block.shared is not None:
        yield block.shared


def is_centred(block: Block) -> bool:
    """Whether the block's own norms take the mean away."""
    norm = block.before_attention or block.before_feed
    return norm is not None and norm.kind is NormKind.LAYER


_NOTHING = 1e-10
"""Share of the power of the strongest direction below which a direction holds rounding alone."""


def unused_directions(rows: Matrix) -> Doubles:
    """Orthonormal directions [d, k] in which no rows [n, d] differ, up to rounding; none where n <= d."""
    if len(rows) <= rows.shape[1]:
        return np.empty((rows.shape[1], 0))
    wide = rows.astype(np.float64)
    wide -= wide.mean(0)
    values, vectors = np.linalg.eigh(wide.T @ wide)
    return vectors[:, values < _NOTHING * values[-1]]


def _without(matrix: Matrix, unused: Doubles) -> Matrix:
    """A matrix [..., d] without its part along directions [d, k]."""
    if not unused.shape[1]:
        return matrix
    narrow = unused.astype(np.float32)
    return matrix - (matrix @ narrow) @ narrow.T


@dataclass(frozen=True, eq=False)
class FoldedAttention:
    """``query`` [heads, w, d], ``key`` and ``value`` [kv, w, d], ``output`` [heads, w, d] (what each entry writes)."""

    query: Matrix
    key: Matrix
    value: Matrix
    output: Matrix

    @property
    def group(self) -> int:
        """Query heads a key-value head."""
        return len(self.query) // len(self.key)

    def without(self, unused: Doubles) -> FoldedAttention:
        """The same without directions of the residual stream that nothing is written to."""
        parts = (_without(part, unused) for part in (self.query, self.key, self.value, self.output))
        return FoldedAttention(*parts)


def _head_norm(heads: Matrix, norm: Norm | None) -> Matrix:
    """Heads [n, w, d] behind a norm of one head: length one each, gain multiplied in."""
    if norm is None:
        return heads
    if norm.kind is NormKind.LAYER:
        heads = without_mean(heads, 1)
    length = np.sqrt(np.einsum("nwd,nwd->n", heads, heads, dtype=np.float64)).astype(np.float32)
    return heads / np.maximum(length, np.finfo(np.float32).tiny)[:, None, None] * norm.gain[:, None]


def fold_attention(block: Block) -> FoldedAttention:
    """The attention of a block with everything around it folded in."""
    part, norm = block.attention, block.before_attention
    width = part.query.shape[1]

    def heads(matrix: Matrix, count: int) -> Matrix:
        return read_through(matrix, norm).reshape(count, -1, width)

    output = written_through(part.output, block.after_attention, is_centred(block))
    return FoldedAttention(
        _head_norm(heads(part.query, part.heads), part.query_norm),
        _head_norm(heads(part.key, part.kv_heads), part.key_norm),
        heads(part.value, part.kv_heads),
        np.ascontiguousarray(output.T).reshape(part.heads, -1, width),
    )


@dataclass(frozen=True, eq=False)
class FoldedFeed:
    """``up`` and ``gate`` [f, d] as they read, ``down`` [f, d] as each neuron writes."""

    up: Matrix
    gate: Matrix | None
    down: Matrix

    def without(self, unused: Doubles) -> FoldedFeed:
        """The same without directions of the residual stream that nothing is written to."""
        gate = None if self.gate is None else _without(self.gate, unused)
        return FoldedFeed(_without(self.up, unused), gate, _without(self.down, unused))


def fold_feed(block: Block, expert: FeedForward) -> FoldedFeed:
    """One feed-forward part of a block with everything around it folded in."""
    norm = feed_norm(block)
    down = written_through(expert.down, block.after_feed, is_centred(block))
    gate = None if expert.gate is None else read_through(expert.gate, norm)
    return FoldedFeed(read_through(expert.up, norm), gate, np.ascontiguousarray(down.T))
