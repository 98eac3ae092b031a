"""The three invariant terms of a block over chosen tokens, each as two thin factors.

With X [K, d] the rows of K tokens as they enter the first block (Zeng et al. 2024, arXiv 2312.04828, HuRef):

    scores  M_a = X Wq^T Wk X^T           summed over heads, each query head with the key head it reads
    values  M_b = X Wv^T Wo^T X^T         likewise
    feed    M_c = [(X Wg^T) o (X Wu^T)] Wd^T X^T, or X Wu^T Wd^T X^T without a gate; summed over experts

with everything of :mod:`vestige.fingerprint.fold` folded in. In this form every change of 1. the basis of the
residual stream, 2. gains, 3. heads and their bases, 4. neurons and their scales that keeps the function keeps the
terms, up to one factor a term. A group of heads that shares one key enters as the sum of its queries, so the inner
width of a factor is kv * w for attention and d for the feed-forward part, never K.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np

from vestige.fingerprint.fold import (
    FoldedAttention,
    feed_norm,
    feeds,
    fold_attention,
    gain_of,
    is_centred,
    without_mean,
    written_through,
)
from vestige.fingerprint.words import Rows
from vestige.models.transformer.block import Attention, Block, Matrix, NormKind, Transformer
from vestige.models.transformer.forward import normalised


class Term(Enum):
    """Which of the three products, by the letter it has in the paper."""

    SCORES = "a"
    VALUES = "b"
    FEED = "c"


@dataclass(frozen=True)
class Recipe:
    """How the terms are formed. Each switch that is off brings back one defect of the published recipe.

    Parameters
    ----------
    fold : gains, mean subtraction and head norms are folded in; off, raw matrices are multiplied.
    gate_in_token_space : the gate multiplies [K, f] activations; off, it multiplies weights (Wg o Wu), which a
        rotation or a flip of signs does not commute with.
    interleave : query head h reads key head h // group; off, h % kv, as when the key heads are tiled.
    double_centre : means of rows and columns are taken off a term; off, its overall mean alone.
    """

    fold: bool = True
    gate_in_token_space: bool = True
    interleave: bool = True
    double_centre: bool = True


EXACT = Recipe()
AS_PUBLISHED = Recipe(fold=False, gate_in_token_space=False, interleave=False, double_centre=False)


BLOCK = 2048
"""Tokens whose rows and factors are held at once."""
_KEPT = 8192
"""So many rows are kept between uses; more are read again each time."""


@dataclass(frozen=True, eq=False)
class Entry:
    """Rows of tokens as the first block reads them: behind the embedding's norm, without what norms take away."""

    transformer: Transformer
    rows: Rows
    recipe: Recipe = EXACT

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self) -> Iterator[Matrix]:
        """X [at most BLOCK, d] of one block of tokens after the other."""
        for start in range(0, len(self.rows), BLOCK):
            part = slice(start, start + BLOCK)
            yield self._kept[part] if len(self.rows) <= _KEPT else self._read(self.rows[part])

    @property
    def matrix(self) -> Matrix:
        """X [k, d] of all tokens."""
        return self._kept

    @cached_property
    def _kept(self) -> Matrix:
        return self._read(self.rows)

    def _read(self, rows: Rows) -> Matrix:
        held = self.transformer.embedding(rows)
        if not self.recipe.fold:
            return held
        norm, final = self.transformer.embedding_norm(), self.transformer.final_norm()
        if norm is not None:
            held = normalised(held.astype(np.float64), norm).astype(np.float32)
        return without_mean(held, 1) if final is not None and final.kind is NormKind.LAYER else held


def _raw_attention(part: Attention) -> FoldedAttention:
    width = part.query.shape[1]
    return FoldedAttention(
        part.query.reshape(part.heads, -1, width),
        part.key.reshape(part.kv_heads, -1, width),
        part.value.reshape(part.kv_heads, -1, width),
        np.ascontiguousarray(part.output.T).reshape(part.heads, -1, width),
    )


def _by_group(heads: Matrix, groups: int, interleave: bool) -> Matrix:
    """Sum [groups * w, d] of the query heads [heads, w, d] that read one key head."""
    count, inner, width = heads.shape
    shape, axis = ((groups, count // groups), 1) if interleave else ((count // groups, groups), 0)
    return heads.reshape(*shape, inner, width).sum(axis).reshape(groups * inner, width)


@dataclass(frozen=True, eq=False)
class BlockTerms:
    """A block ready to give the factors of its terms; built with :meth:`of`.

    ``scores`` and ``values`` hold the matrices [r, d] that X is multiplied by on either side.
    """

    scores: tuple[Matrix, Matrix]
    values: tuple[Matrix, Matrix]
    block: Block
    recipe: Recipe

    @staticmethod
    def of(block: Block, recipe: Recipe = EXACT) -> BlockTerms:
        """Fold the attention; the feed-forward part is folded into the tokens instead, which copies nothing."""
        part = fold_attention(block) if recipe.fold else _raw_attention(block.attention)
        kv, width = len(part.key), part.key.shape[2]
        return BlockTerms(
            (_by_group(part.query, kv, recipe.interleave), part.key.reshape(-1, width)),
            (part.value.reshape(-1, width), _by_group(part.output, kv, recipe.interleave)),
            block,
            recipe,
        )

    def factors(self, term: Term, rows: Matrix) -> tuple[Matrix, Matrix]:
        """P [K, r] and Q [K, r] with the term P Q^T, for rows X [K, d]."""
        if term is Term.FEED:
            return self._feed(rows), rows
        left, right = self.scores if term is Term.SCORES else self.values
        return rows @ left.T, rows @ right.T

    def _feed(self, rows: Matrix) -> Matrix:
        """What the feed-forward part adds [K, d] to the residual stream, its nonlinearity left out."""
        norm = feed_norm(self.block) if self.recipe.fold else None
        inside = rows * gain_of(norm, rows.shape[1])
        added = np.zeros_like(rows)
        for expert in feeds(self.block):
            if expert.gate is None:
                hidden = inside @ expert.up.T
            elif self.recipe.gate_in_token_space:
                hidden = (inside @ expert.gate.T) * (inside @ expert.up.T)
            else:
                hidden = inside @ (expert.gate * expert.up).T
            added += hidden @ expert.down.T
        if not self.recipe.fold:
            return added
        return written_through(added.T, self.block.after_feed, is_centred(self.block)).T
