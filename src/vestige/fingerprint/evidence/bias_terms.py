"""Invariants of the biases of a block, where it has any."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vestige.errors import InvalidInput
from vestige.fingerprint.evidence.evidence import Evidence, Finding
from vestige.fingerprint.fold import (
    bias_through,
    feed_norm,
    feeds,
    fold_attention,
    is_centred,
    read_through,
    written_through,
)
from vestige.fingerprint.pair import Pair
from vestige.models.transformer.block import Block, Matrix


def bias_directions(block: Block) -> dict[str, Matrix]:
    """Vectors [d] of the residual stream whose products with tokens no symmetry changes, by name.

    ``Wk^T bq`` over all heads, ``Wq^T bk`` where positions turn queries and keys (else a key's bias has no effect),
    what attention always adds (``Wo bv + bo``) or the feed-forward part (``bd``), and ``Wd bu`` and ``Wg^T bg`` of
    neurons. What a norm adds is counted with the bias behind it. Queries and keys with a norm of their own are left
    out: their length, bias included, has no effect.
    """
    part, found = block.attention, dict[str, Matrix]()
    folded, norm = fold_attention(block), block.before_attention
    width = part.query.shape[1]
    if part.query_norm is None and part.key_norm is None:
        query, key = bias_through(part.query, part.query_bias, norm), bias_through(part.key, part.key_bias, norm)
        if query is not None:
            summed = query.reshape(part.kv_heads, folded.group, -1).sum(1).ravel()
            found["query bias"] = summed @ folded.key.reshape(-1, width)
        if key is not None and part.rotary is not None:
            queries = folded.query.reshape(part.kv_heads, folded.group, -1, width).sum(1)
            found["key bias"] = key @ queries.reshape(-1, width)
    value = bias_through(part.value, part.value_bias, norm)
    added = None if part.output_bias is None else part.output_bias
    if value is not None:
        moved = part.output @ np.repeat(value.reshape(part.kv_heads, -1), folded.group, axis=0).ravel()
        added = moved if added is None else added + moved
    if added is not None:
        found["attention bias"] = written_through(added[:, None], block.after_attention, is_centred(block))[:, 0]
    return {**found, **_feed(block)}


def _feed(block: Block) -> dict[str, Matrix]:
    found, norm = dict[str, Matrix](), feed_norm(block)

    def add(name: str, vector: Matrix) -> None:
        found[name] = found[name] + vector if name in found else vector

    def written(vector: Matrix) -> Matrix:
        return written_through(vector[:, None], block.after_feed, is_centred(block))[:, 0]

    for expert in feeds(block):
        up = bias_through(expert.up, expert.up_bias, norm)
        gate = None if expert.gate is None else bias_through(expert.gate, expert.gate_bias, norm)
        if up is not None:
            add("up bias", written(expert.down @ up))
        if expert.gate is not None and gate is not None:
            add("gate bias", gate @ read_through(expert.gate, norm))
        if expert.down_bias is not None:
            add("down bias", written(expert.down_bias))
    return found


@dataclass(frozen=True)
class BiasTerms(Evidence):
    """Correlation over tokens of ``X v`` for the vectors v that the biases of the last layers make.

    Parameters
    ----------
    last : pairs of matched layers from the end.
    """

    claim: ClassVar[str] = "Biases move with the matrices that they meet, so their products stay."
    source: ClassVar[str] = "The terms of arXiv 2312.04828 for the biases, which it leaves out"

    last: int = 2

    def __post_init__(self) -> None:
        if self.last < 1:
            raise InvalidInput(
                f"BiasTerms over the last {self.last} layers.", expected="at least 1.", remedy="change the setting."
            )

    def measure(self, pair: Pair) -> Finding:
        """The mean correlation; parts are the mean over layers of every bias."""
        ours, theirs = pair.aligned_by
        if len(ours) < 8:
            return self.nothing("the models share too few tokens")
        tokens = [side.matrix - side.matrix.mean(0) for side in (ours, theirs)]
        found: dict[str, list[tuple[float, float]]] = {}
        for layers in pair.layers[-self.last :]:
            first, second = (bias_directions(block) for block in pair.blocks(layers))
            for name in [name for name in first if name in second]:
                value = _correlation(tokens[0], first[name], tokens[1], second[name])
                if value is not None:
                    found.setdefault(name, []).append(value)
        every = [value for values in found.values() for value in values]
        if not every:
            return self.nothing("the models have no biases in common")
        deviation = math.sqrt(sum(error**2 for _, error in every)) / len(every)
        means = tuple((name, sum(value for value, _ in values) / len(values)) for name, values in found.items())
        return Finding(self.name, sum(value for value, _ in every) / len(every), deviation, means)


def _correlation(first: Matrix, ours: Matrix, second: Matrix, theirs: Matrix) -> tuple[float, float] | None:
    """Correlation of ``first @ ours`` and ``second @ theirs`` and its deviation were ``theirs`` turned at random.

    For a Haar-random direction u, ``v^T Y u`` has variance ``|Y^T v|^2 / d`` and ``|Y u|^2`` mean ``|Y|^2 / d``.
    """
    one, other = (
        side.astype(np.float64) @ vector.astype(np.float64) for side, vector in ((first, ours), (second, theirs))
    )
    lengths = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    if min(lengths) == 0:
        return None
    error = float(np.linalg.norm(second.T.astype(np.float64) @ one)) / (lengths[0] * float(np.linalg.norm(second)))
    return float(one @ other) / (lengths[0] * lengths[1]), error
