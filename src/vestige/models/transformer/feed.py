"""Feed-forward parts, alone or as the experts of a mixture, which may be larger than the rest of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from vestige.models.transformer.block import Activation, FeedForward, Matrix
from vestige.models.transformer.checkpoint import Layer


def plain_feed(layer: Layer, up: str, down: str, width: int, activation: Activation) -> FeedForward:
    """A part without a gate, from the linear maps of these names and their biases."""
    hidden = layer.rows_of(f"{up}.weight", width)
    (first, first_bias), (second, second_bias) = layer.linear(up, hidden, width), layer.linear(down, width, hidden)
    return FeedForward(first, second, activation, up_bias=first_bias, down_bias=second_bias)


def gated_feed(layer: Layer, gate: str, up: str, down: str, width: int, activation: Activation) -> FeedForward:
    """A part with a gate, from the linear maps of these names and their biases.

    Where ``gate`` and ``up`` have one name, that map holds both, the gate first.
    """
    if gate == up:
        rows = layer.rows_of(f"{up}.weight", width)
        both, bias = layer.linear(up, rows, width)
        hidden = rows // 2
        halves = slice(0, hidden), slice(hidden, 2 * hidden)
        (first, first_bias), (second, second_bias) = ((both[h], None if bias is None else bias[h]) for h in halves)
    else:
        hidden = layer.rows_of(f"{up}.weight", width)
        first, first_bias = layer.linear(gate, hidden, width)
        second, second_bias = layer.linear(up, hidden, width)
    last, last_bias = layer.linear(down, width, hidden)
    return FeedForward(second, last, activation, first, second_bias, first_bias, last_bias)


@dataclass(frozen=True, eq=False)
class Experts(Sequence[FeedForward]):
    """Experts that are read from the file each time they are indexed."""

    number: int
    read: Callable[[int], FeedForward]

    def __len__(self) -> int:
        return self.number

    @overload
    def __getitem__(self, index: int) -> FeedForward: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[FeedForward, ...]: ...
    def __getitem__(self, index: int | slice) -> FeedForward | tuple[FeedForward, ...]:
        if isinstance(index, slice):
            return tuple(self.read(expert) for expert in range(self.number)[index])
        return self.read(range(self.number)[index])


@dataclass(frozen=True)
class ExpertNames:
    """What the three matrices of an expert are called."""

    gate: str
    up: str
    down: str


def separate_experts(
    layer: Layer, prefix: str, names: ExpertNames, count: int, width: int, activation: Activation
) -> Experts:
    """Experts of matrices of their own, ``prefix.N.name.weight``."""
    hidden = layer.rows_of(f"{prefix}.0.{names.up}.weight", width)

    def place(expert: int, name: str) -> str:
        return f"{prefix}.{expert}.{name}.weight"

    def read(expert: int) -> FeedForward:
        return FeedForward(
            up=layer.tensor(place(expert, names.up), hidden, width),
            down=layer.tensor(place(expert, names.down), width, hidden),
            activation=activation,
            gate=layer.tensor(place(expert, names.gate), hidden, width),
        )

    for expert in range(count):
        layer.expect(place(expert, names.up), hidden, width)
        layer.use(place(expert, name) for name in (names.gate, names.up, names.down))
    return Experts(count, read)


def stacked_experts(
    layer: Layer, names: ExpertNames, count: int, hidden: int, width: int, activation: Activation
) -> Experts:
    """Experts one after the other in ``gate`` and ``up`` [count, hidden, width] and ``down`` [count, width, hidden].

    Where ``gate`` and ``up`` have one name, it holds both, [count, 2 hidden, width], the gate first.
    """
    fused = names.gate == names.up

    def one(name: str, expert: int, rows: int, columns: int) -> Matrix:
        return layer.tensor(name, count, rows, columns, rows=np.array([expert], np.int64))[0]

    def read(expert: int) -> FeedForward:
        if fused:
            both = one(names.up, expert, 2 * hidden, width)
            gate, up = both[:hidden], both[hidden:]
        else:
            gate, up = one(names.gate, expert, hidden, width), one(names.up, expert, hidden, width)
        return FeedForward(up=up, down=one(names.down, expert, width, hidden), activation=activation, gate=gate)

    layer.expect(names.up, count, 2 * hidden if fused else hidden, width)
    layer.use((names.gate, names.up, names.down))
    return Experts(count, read)
