"""A transformer whose matrices stay where they are until they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import final

import numpy as np
import numpy.typing as npt

from vestige.errors import InvalidInput
from vestige.models.transformer.block import Block, Matrix, Norm, Transformer
from vestige.models.transformer.checkpoint import Checkpoint
from vestige.models.transformer.family import Family, Outline


@final
@dataclass(frozen=True, eq=False)
class StoredTransformer(Transformer):
    """A checkpoint read by its family. Nothing is kept but names, settings and, once asked for, tokens and digest."""

    checkpoint: Checkpoint
    family: Family
    outline: Outline
    read_tokens: Callable[[int], tuple[str, ...] | None] = field(repr=False)
    """From the number of rows to their tokens."""

    @property
    def architecture(self) -> str:
        """Its name in the field."""
        return self.outline.architecture

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return self.outline.depth

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.outline.width

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding."""
        return self.checkpoint.rows_of(self.outline.embedding, self.width)

    @cached_property
    def _tokens(self) -> tuple[str, ...] | None:
        return self.read_tokens(self.vocabulary)

    @property
    def tokens(self) -> tuple[str, ...] | None:
        """The token of every row."""
        return self._tokens

    @cached_property
    def _digest(self) -> str:
        return self.checkpoint.source.digest

    @property
    def digest(self) -> str:
        """The digest of the source: every byte is read on the first call."""
        return self._digest

    @property
    def embedding_scale(self) -> float:
        """What the embedding's rows are multiplied by."""
        return self.outline.embedding_scale

    @property
    def logit_cap(self) -> float | None:
        """Where logits are capped."""
        return self.outline.logit_cap

    def embedding(self, rows: npt.NDArray[np.int64] | None = None) -> Matrix:
        """Embedding of these rows, or all."""
        held = self.checkpoint.tensor(self.outline.embedding, self.vocabulary, self.width, rows=rows)
        if self.embedding_scale != 1.0:
            held *= np.float32(self.embedding_scale)
        return held

    def positions(self) -> Matrix | None:
        """Learned absolute positions."""
        return self.family.positions(self.checkpoint)

    def embedding_norm(self) -> Norm | None:
        """The norm between embedding and first block."""
        return self.family.embedding_norm(self.checkpoint)

    def final_norm(self) -> Norm | None:
        """The norm before the head."""
        return self.family.final_norm(self.checkpoint)

    def head(self) -> Matrix | None:
        """The head, or None where it is the embedding. Raises BadWeights where the file has none."""
        name = self.outline.head
        return None if name is None else self.checkpoint.tensor(name, self.vocabulary, self.width)

    def head_bias(self) -> Matrix | None:
        """What is added to the logits."""
        name = self.outline.head_bias
        return None if name is None else self.checkpoint.tensor(name, self.vocabulary)

    def block(self, index: int) -> Block:
        """Block ``index`` from 0."""
        if not 0 <= index < self.depth:
            raise InvalidInput(
                f"Block {index} was asked for.",
                expected=f"a number from 0 to {self.depth - 1}.",
                remedy="ask for a block that the model has.",
            )
        return self.family.block(self.checkpoint, index)
