"""A block's matrices in the basis of the residual stream, with every inner basis gone.

Features ``F`` [r, d] have a Gram matrix ``F^T F`` that no change of a head's basis, no order of heads or neurons and
no scale of a neuron changes: queries are multiplied by the root of the Gram matrix of the keys that they meet, and so
on, so that ``F^T F`` of the queries is the sum over heads of ``A_h A_h^T`` with ``A_h = Wq_h^T Wk_h``. Products [d, d]
have both sides in the residual stream.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from vestige.fingerprint.fold import Doubles, FoldedAttention, FoldedFeed, feeds, fold_attention, fold_feed
from vestige.models.transformer.block import Block, Matrix


class Part(Enum):
    """Which matrix of a block."""

    QUERY = "query"
    KEY = "key"
    VALUE = "value"
    OUTPUT = "output"
    UP = "up"
    GATE = "gate"
    DOWN = "down"


def roots(heads: Matrix) -> Doubles:
    """Square root [n, w, w] of ``W W^T`` of every head [n, w, d]."""
    wide = heads.astype(np.float64)
    values, vectors = np.linalg.eigh(wide @ wide.transpose(0, 2, 1))
    return (vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]) @ vectors.transpose(0, 2, 1)


def _stacked(heads: Matrix, groups: int) -> Matrix:
    """All heads [heads, w, d] of one group side by side [groups, w, heads / groups * d]."""
    count, inner, width = heads.shape
    return heads.reshape(groups, -1, inner, width).transpose(0, 2, 1, 3).reshape(groups, inner, count // groups * width)


def _attention_features(part: FoldedAttention) -> dict[Part, Matrix]:
    groups, width = len(part.key), part.key.shape[2]

    def meeting(heads: Matrix, met: Doubles) -> Matrix:
        factors = np.repeat(met.astype(np.float32), len(heads) // len(met), axis=0)
        return (factors @ heads).reshape(-1, width)

    return {
        Part.QUERY: meeting(part.query, roots(part.key)),
        Part.KEY: meeting(part.key, roots(_stacked(part.query, groups))),
        Part.VALUE: meeting(part.value, roots(_stacked(part.output, groups))),
        Part.OUTPUT: meeting(part.output, roots(part.value)),
    }


def _lengths(rows: Matrix) -> Matrix:
    """Length [n, 1] of every row [n, d]."""
    return np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64)).astype(np.float32)[:, None]


def _feed_features(part: FoldedFeed) -> dict[Part, Matrix]:
    features = {Part.UP: part.up * _lengths(part.down), Part.DOWN: part.down * _lengths(part.up)}
    return features if part.gate is None else {**features, Part.GATE: part.gate}


def grams(block: Block, unused: Doubles) -> dict[Part, Matrix]:
    """Gram matrix [d, d] of the features of every part; those of experts are summed.

    ``unused`` [d, k] are directions of the residual stream that nothing is written to.
    """
    attention = _attention_features(fold_attention(block).without(unused))
    found = {part: features.T @ features for part, features in attention.items()}
    for expert in feeds(block):
        for part, features in _feed_features(fold_feed(block, expert).without(unused)).items():
            gram = features.T @ features
            found[part] = found[part] + gram if part in found else gram
    return found


class Product(Enum):
    """Which product of two matrices of a block, both of whose sides lie in the residual stream."""

    SCORES = "scores"
    VALUES = "values"
    UP_DOWN = "up and down"
    GATES = "gates"


def products(block: Block, unused: Doubles) -> dict[Product, Matrix]:
    """``sum_h Wq_h^T Wk_h``, ``sum_h Wv_h^T Wo_h^T``, ``sum_i up_i down_i^T``, ``sum_i gate_i gate_i^T``, all [d, d].

    ``unused`` [d, k] are directions of the residual stream that nothing is written to.
    """
    part = fold_attention(block).without(unused)
    kv, _, width = part.key.shape
    query, output = (
        heads.reshape(kv, -1, *heads.shape[1:]).sum(1).reshape(-1, width) for heads in (part.query, part.output)
    )
    found = {
        Product.SCORES: query.T @ part.key.reshape(-1, width),
        Product.VALUES: part.value.reshape(-1, width).T @ output,
    }
    for expert in feeds(block):
        feed = fold_feed(block, expert).without(unused)
        pairs = {Product.UP_DOWN: feed.up.T @ feed.down}
        if feed.gate is not None:
            pairs[Product.GATES] = feed.gate.T @ feed.gate
        for kind, product in pairs.items():
            found[kind] = found[kind] + product if kind in found else product
    return found
