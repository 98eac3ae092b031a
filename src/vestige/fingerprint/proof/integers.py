"""A model's last blocks and chosen token rows as small integers, so that every number of a proof is exact.

Each matrix, with norms and gains folded in (:mod:`vestige.fingerprint.fold`), is divided by its own step, its largest
magnitude over 127, and rounded to int8. A step only scales the terms that its matrix enters, and cosines do not
see it, so steps are not published. Queries that share a key, and outputs that share a value, are added as
integers. The feed-forward term is the one without its gate, ``X Wu^T Wd^T X^T``: the gated one is of third order in
the weights, which the sketch's argument does not cover; biases are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.errors import BadWeights, InvalidInput, Unsupported
from vestige.fingerprint.fold import FoldedAttention, FoldedFeed, fold_attention, fold_feed
from vestige.fingerprint.terms import Entry, Term
from vestige.fingerprint.words import Words
from vestige.models.transformer.block import Matrix, Transformer

Int8 = npt.NDArray[np.int8]
Int16 = npt.NDArray[np.int16]

LARGEST = 127
MOST_WORDS = 1 << 16
MOST_INNER = 1 << 16
"""Entries of the longest vector that a column may be."""


@dataclass(frozen=True)
class TermName:
    """Which product of which block, and the inner width of its two factors."""

    layer: int
    term: Term
    inner: int


@dataclass(frozen=True, eq=False)
class IntegerTerm:
    """A term X L^T R X^T by its factors ``left`` and ``right`` [r, d]."""

    name: TermName
    left: Int16
    right: Int16


@dataclass(frozen=True, eq=False)
class IntegerBlock:
    """Matrices of one block on their grids.

    ``query`` and ``output`` [heads, w, d], ``key`` and ``value`` [kv, w, d], ``up`` and ``down`` [f, d]; experts lie
    one after the other.
    """

    layer: int
    query: Int8
    key: Int8
    value: Int8
    output: Int8
    up: Int8
    down: Int8

    @property
    def matrices(self) -> dict[str, Int8]:
        """Each matrix by name, heads one after the other: [rows, d]."""
        width = self.query.shape[-1]
        held = {name: getattr(self, name) for name in ("query", "key", "value", "output", "up", "down")}
        return {f"block/{self.layer}/{name}": matrix.reshape(-1, width) for name, matrix in held.items()}

    @property
    def terms(self) -> tuple[IntegerTerm, ...]:
        """The three terms, queries and outputs of one group added up."""
        kv = len(self.key)
        pairs = {
            Term.SCORES: (_by_group(self.query, kv), _flat(self.key)),
            Term.VALUES: (_flat(self.value), _by_group(self.output, kv)),
            Term.FEED: (_flat(self.up), _flat(self.down)),
        }
        return tuple(
            IntegerTerm(TermName(self.layer, term, len(left)), left, right) for term, (left, right) in pairs.items()
        )


@dataclass(frozen=True, eq=False)
class IntegerModel:
    """``rows`` [K, d] of the tokens ``words`` as they enter the first block, and blocks, in order of layers."""

    words: Words
    rows: Int8
    blocks: tuple[IntegerBlock, ...]

    @property
    def terms(self) -> tuple[IntegerTerm, ...]:
        """The terms of every block, in order of layers and of :class:`Term`."""
        return tuple(term for block in self.blocks for term in block.terms)

    @property
    def matrices(self) -> dict[str, Int8]:
        """Everything that is on a grid, by name: ``words`` and ``block/LAYER/NAME``."""
        return {"words": self.rows} | {name: held for block in self.blocks for name, held in block.matrices.items()}


def on_grid(matrix: Matrix, name: str) -> Int8:
    """``matrix`` divided by its largest magnitude over 127 and rounded; zeros where it is zero.

    Raises
    ------
    BadWeights : an entry is NaN or infinite.
    """
    wide = matrix.astype(np.float64)
    largest = float(np.max(np.abs(wide), initial=0.0))
    if not np.isfinite(largest):
        raise BadWeights(
            f"{name} holds NaN or infinity.", expected="finite weights.", remedy="check the file the model came from."
        )
    return np.rint(wide * (LARGEST / largest)).astype(np.int8) if largest > 0 else np.zeros(wide.shape, np.int8)


def last_layers(transformer: Transformer, count: int = 2) -> tuple[int, ...]:
    """Numbers of the last ``count`` blocks, or of all where there are fewer."""
    return tuple(range(max(0, transformer.depth - count), transformer.depth))


def integer_model(transformer: Transformer, words: Words, layers: Sequence[int]) -> IntegerModel:
    """Read the rows of these words and these blocks, and round them to their grids.

    Raises
    ------
    InvalidInput : fewer than 2 words, or layers that are not ascending blocks of the model.
    Unsupported : more words, or a wider feed-forward part, than a proof has room for.
    BadWeights : NaN or infinity.
    """
    if not layers or list(layers) != sorted(set(layers)) or not 0 <= layers[0] <= layers[-1] < transformer.depth:
        raise InvalidInput(
            f"Layers {list(layers)} of a model of {transformer.depth} blocks.",
            expected="ascending numbers of blocks, from 0.",
            remedy="name other layers.",
        )
    if not 2 <= len(words) <= MOST_WORDS:
        raise InvalidInput(f"{len(words)} tokens.", expected=f"2 to {MOST_WORDS}.", remedy="choose another band.")
    blocks = tuple(_block(transformer, layer) for layer in layers)
    widest = max(term.name.inner for block in blocks for term in block.terms)
    if widest > MOST_INNER:
        raise Unsupported(
            f"An inner width of {widest}.",
            expected=f"at most {MOST_INNER}, all experts together.",
            remedy="use the auditor's tier for this model.",
        )
    return IntegerModel(words, on_grid(Entry(transformer, words.rows).matrix, "The embedding"), blocks)


def _block(transformer: Transformer, layer: int) -> IntegerBlock:
    block = transformer.block(layer)
    attention: FoldedAttention = fold_attention(block)
    experts: list[FoldedFeed] = [fold_feed(block, expert) for expert in block.experts]

    def rounded(name: str, matrix: Matrix) -> Int8:
        return on_grid(matrix, f"block {layer}, {name}")

    return IntegerBlock(
        layer,
        rounded("query", attention.query),
        rounded("key", attention.key),
        rounded("value", attention.value),
        rounded("output", attention.output),
        rounded("up", np.concatenate([expert.up for expert in experts])),
        rounded("down", np.concatenate([expert.down for expert in experts])),
    )


def _flat(heads: Int8) -> Int16:
    return heads.reshape(-1, heads.shape[-1]).astype(np.int16)


def _by_group(heads: Int8, groups: int) -> Int16:
    """Sum [groups * w, d] of the heads [heads, w, d] that share a key-value head."""
    count, inner, width = heads.shape
    return heads.reshape(groups, count // groups, inner, width).sum(1, dtype=np.int16).reshape(-1, width)
