"""A transformer whose matrices are all in memory, to be changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, cast, final

import numpy as np
import numpy.typing as npt

from vestige.digest import digest_array, digest_json
from vestige.errors import InvalidInput
from vestige.models.transformer.block import Block, Matrix, Norm, Transformer


@final
@dataclass(frozen=True, eq=False)
class InMemoryTransformer(Transformer):
    """What a :class:`Transformer` answers, as fields. Change it with :func:`dataclasses.replace`.

    ``table`` [V, d] is the embedding as it enters the first block, its scale included; ``own_head`` None says that the
    head is the table divided by ``scale``.
    """

    name: str
    blocks: tuple[Block, ...]
    table: Matrix
    last_norm: Norm | None
    own_head: Matrix | None = None
    own_head_bias: Matrix | None = None
    learned_positions: Matrix | None = None
    first_norm: Norm | None = None
    strings: tuple[str, ...] | None = None
    scale: float = 1.0
    cap: float | None = None

    @staticmethod
    def of(transformer: Transformer) -> InMemoryTransformer:
        """Read everything, all experts included."""
        blocks = (transformer.block(index) for index in range(transformer.depth))
        return InMemoryTransformer(
            name=transformer.architecture,
            blocks=tuple(replace(block, experts=tuple(block.experts)) for block in blocks),
            table=transformer.embedding(),
            last_norm=transformer.final_norm(),
            own_head=transformer.head(),
            own_head_bias=transformer.head_bias(),
            learned_positions=transformer.positions(),
            first_norm=transformer.embedding_norm(),
            strings=transformer.tokens,
            scale=transformer.embedding_scale,
            cap=transformer.logit_cap,
        )

    @property
    def architecture(self) -> str:
        """Its name in the field."""
        return self.name

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return len(self.blocks)

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.table.shape[1]

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding."""
        return len(self.table)

    @property
    def tokens(self) -> tuple[str, ...] | None:
        """The token of every row."""
        return self.strings

    @cached_property
    def _digest(self) -> str:
        held = self.table, self.blocks, self.last_norm, self.own_head, self.own_head_bias
        rest = self.learned_positions, self.first_norm
        return digest_json([[name, digest_array(array)] for name, array in _arrays("", (*held, *rest))])

    @property
    def digest(self) -> str:
        """Identifies the matrices, not the file that they came from."""
        return self._digest

    @property
    def embedding_scale(self) -> float:
        """What the embedding's rows were multiplied by."""
        return self.scale

    @property
    def logit_cap(self) -> float | None:
        """Where logits are capped."""
        return self.cap

    def embedding(self, rows: npt.NDArray[np.int64] | None = None) -> Matrix:
        """Embedding of these rows, or all."""
        if rows is None:
            return self.table
        if rows.size and (int(rows.min()) < 0 or int(rows.max()) >= len(self.table)):
            raise InvalidInput(
                f"Rows {int(rows.min())} to {int(rows.max())} of the embedding were asked for.",
                expected=f"rows from 0 to {len(self.table) - 1}.",
                remedy="ask for rows that it has.",
            )
        return self.table[rows]

    def positions(self) -> Matrix | None:
        """Learned absolute positions."""
        return self.learned_positions

    def embedding_norm(self) -> Norm | None:
        """The norm between embedding and first block."""
        return self.first_norm

    def final_norm(self) -> Norm | None:
        """The norm before the head."""
        return self.last_norm

    def head(self) -> Matrix | None:
        """The head, or None where it is the embedding."""
        return self.own_head

    def head_bias(self) -> Matrix | None:
        """What is added to the logits."""
        return self.own_head_bias

    def block(self, index: int) -> Block:
        """Block ``index`` from 0."""
        if not 0 <= index < self.depth:
            raise InvalidInput(
                f"Block {index} was asked for.", expected=f"0 to {self.depth - 1}.", remedy="ask for one that it has."
            )
        return self.blocks[index]


def _arrays(name: str, part: object) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Every array below a part, with the path to it."""
    if isinstance(part, np.ndarray):
        yield name, cast("npt.NDArray[Any]", part)
    elif isinstance(part, tuple):
        for index, item in enumerate(cast("tuple[object, ...]", part)):
            yield from _arrays(f"{name}/{index}", item)
    elif hasattr(part, "__dataclass_fields__"):
        for each in fields(cast("Any", part)):
            yield from _arrays(f"{name}/{each.name}", getattr(part, each.name))
