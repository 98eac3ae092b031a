"""Tensors of a checkpoint by the names of its architecture, each checked against the shape that it must have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from vestige.errors import BadWeights, Unsupported
from vestige.models.transformer.block import Matrix, Norm, NormKind
from vestige.models.transformer.settings import Settings
from vestige.models.weights.source import IndexArray, WeightSource

_BUFFERS = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias")
"""Ends of names of constants that older files hold beside the weights: masks and frequencies."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A source of weights and the settings of what they are."""

    source: WeightSource
    settings: Settings

    @cached_property
    def held(self) -> frozenset[str]:
        """Names of all tensors."""
        return frozenset(self.source.names)

    def first(self, *names: str) -> str | None:
        """The first of these names that is there."""
        return next((name for name in names if name in self.held), None)

    def needed(self, *names: str) -> str:
        """The first of these names that is there. Raises BadWeights if none is."""
        name = self.first(*names)
        if name is None:
            raise BadWeights(
                f"There is no tensor {' or '.join(names)}.",
                expected=f"the tensors of the architecture that {self.settings.origin} names.",
                remedy="fetch all files of the model; an adapter alone has to be merged into its model first.",
            )
        return name

    def trunk(self, ending: str, *prefixes: str) -> str:
        """The first of these prefixes under which there is a tensor ``ending``. Raises BadWeights."""
        return self.needed(*(prefix + ending for prefix in prefixes)).removesuffix(ending)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor that is there."""
        return self.source.entry(name).shape

    def rows_of(self, name: str, width: int) -> int:
        """Number of rows of a matrix of this width. Raises BadWeights."""
        shape = self.shape(name)
        if len(shape) != 2 or shape[1] != width or not shape[0]:
            raise _misfit(name, shape, ("any", width))
        return shape[0]

    def columns_of(self, name: str, height: int) -> int:
        """Number of columns of a matrix of this height. Raises BadWeights."""
        shape = self.shape(name)
        if len(shape) != 2 or shape[0] != height or not shape[1]:
            raise _misfit(name, shape, (height, "any"))
        return shape[1]

    def tensor(self, name: str, *shape: int, rows: IndexArray | None = None) -> Matrix:
        """A tensor that must have this shape, or rows of it. Raises BadWeights and what reading raises."""
        self.expect(name, *shape)
        return self.source.read(name, rows)

    def expect(self, name: str, *shape: int) -> None:
        """Raise BadWeights unless there is a tensor of this shape."""
        found = self.shape(self.needed(name))
        if found != shape:
            raise _misfit(name, found, shape)

    def norm(self, name: str, kind: NormKind, width: int, epsilon: float, *, added: float = 0.0) -> Norm:
        """``name.weight``, to which ``added`` is added, and ``name.bias`` where it is there."""
        gain = self.tensor(f"{name}.weight", width)
        if added:
            gain += np.float32(added)
        bias = self.tensor(f"{name}.bias", width) if f"{name}.bias" in self.held else None
        return Norm(kind, gain, bias, epsilon)

    def layer(self, prefix: str) -> Layer:
        """The tensors whose names begin with ``prefix``."""
        return Layer(self, prefix)

    def depth(self, prefix: str, claimed: int) -> int:
        """``claimed``, if so many layers named ``prefixN.`` are there. Raises BadWeights."""
        tails = (name[len(prefix) :].partition(".")[0] for name in self.held if name.startswith(prefix))
        found = {int(tail) for tail in tails if tail.isascii() and tail.isdigit() and len(tail) < 8}
        if len(found) != claimed or max(found) != claimed - 1:
            raise BadWeights(
                f"The weights hold {len(found)} layers, numbered {min(found, default=0)} to {max(found, default=0)}.",
                expected=f"the {claimed} that {self.settings.origin} claims, numbered from 0.",
                remedy="fetch all files of the model, or correct the number of layers in its settings.",
            )
        return claimed


@dataclass(eq=False)
class Layer:
    """Tensors of one layer; :meth:`done` makes sure that none was overlooked."""

    checkpoint: Checkpoint
    prefix: str
    _used: set[str] = field(default_factory=set[str])

    def has(self, name: str) -> bool:
        """Whether the layer has a tensor of this name."""
        return self.prefix + name in self.checkpoint.held

    def tensor(self, name: str, *shape: int, rows: IndexArray | None = None) -> Matrix:
        """See :meth:`Checkpoint.tensor`."""
        self._used.add(self.prefix + name)
        return self.checkpoint.tensor(self.prefix + name, *shape, rows=rows)

    def expect(self, name: str, *shape: int) -> None:
        """See :meth:`Checkpoint.expect`."""
        self.checkpoint.expect(self.prefix + name, *shape)

    def rows_of(self, name: str, width: int) -> int:
        """See :meth:`Checkpoint.rows_of`."""
        return self.checkpoint.rows_of(self.checkpoint.needed(self.prefix + name), width)

    def columns_of(self, name: str, height: int) -> int:
        """See :meth:`Checkpoint.columns_of`."""
        return self.checkpoint.columns_of(self.checkpoint.needed(self.prefix + name), height)

    def linear(self, name: str, out: int, width: int, rows: IndexArray | None = None) -> tuple[Matrix, Matrix | None]:
        """``name.weight`` [out, width] and ``name.bias`` [out] where it is there, or rows of both."""
        weight = self.tensor(f"{name}.weight", out, width, rows=rows)
        bias = self.tensor(f"{name}.bias", out, rows=rows) if self.has(f"{name}.bias") else None
        return weight, bias

    def norm(self, name: str, kind: NormKind, width: int, epsilon: float, *, added: float = 0.0) -> Norm:
        """See :meth:`Checkpoint.norm`."""
        self._used |= {f"{self.prefix}{name}.weight", f"{self.prefix}{name}.bias"}
        return self.checkpoint.norm(self.prefix + name, kind, width, epsilon, added=added)

    def use(self, names: Iterable[str]) -> None:
        """Count tensors as known that are read later."""
        self._used |= {self.prefix + name for name in names}

    def done(self) -> None:
        """Raise Unsupported if the layer holds a tensor that nobody has asked for."""
        mine = (name for name in self.checkpoint.held if name.startswith(self.prefix))
        left = sorted(name for name in mine if name not in self._used and not name.endswith(_BUFFERS))
        if left:
            raise Unsupported(
                f"The weights hold {', '.join(left[:4])}{' and more' if len(left) > 4 else ''}.",
                expected=f"only tensors that the architecture of {self.checkpoint.settings.origin} is known to have.",
                remedy="merge adapters and dequantise packed weights first; another architecture cannot be read.",
            )


def _misfit(name: str, found: tuple[int, ...], expected: tuple[int | str, ...]) -> BadWeights:
    return BadWeights(
        f"The tensor {name} has the shape {list(found)}.",
        expected=f"{list(expected)}, by the settings of its architecture.",
        remedy="take settings and weights from the same model.",
    )
