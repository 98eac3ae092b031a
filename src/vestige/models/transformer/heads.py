"""Queries, keys and values of a layer, from matrices of their own or from one that they are fused into."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vestige.models.transformer.block import Attention, Matrix, Norm, Rotary
from vestige.models.transformer.checkpoint import Layer
from vestige.models.transformer.settings import Settings
from vestige.models.weights.source import IndexArray


@dataclass(frozen=True)
class Heads:
    """``count`` query heads of ``width`` entries, read in order by ``kv`` key-value heads."""

    count: int
    kv: int
    width: int

    @staticmethod
    def checked(settings: Settings, stream: int, count: int, kv: int, width: int | None = None) -> Heads:
        """Heads in equal groups, which share the width of the stream where ``width`` is None. Raises CorruptFile."""
        if count % kv:
            raise settings.wrong("the number of key-value heads", kv, f"a divisor of the {count} heads")
        if width is None and stream % count:
            raise settings.wrong("the number of heads", count, f"a divisor of the width {stream}")
        return Heads(count, kv, width or stream // count)

    @property
    def queries(self) -> int:
        """Rows of the queries."""
        return self.count * self.width

    @property
    def keys(self) -> int:
        """Rows of the keys, and of the values."""
        return self.kv * self.width

    def stacked(self) -> tuple[IndexArray, IndexArray, IndexArray]:
        """Rows of queries, keys and values where all queries come first, then all keys, then all values."""
        first, second = self.queries, self.queries + self.keys
        return _rows(0, first), _rows(first, second), _rows(second, second + self.keys)

    def grouped(self) -> tuple[IndexArray, IndexArray, IndexArray]:
        """Rows of queries, keys and values where every key-value head follows its queries, and its value the key."""
        rows = _rows(0, self.queries + 2 * self.keys).reshape(self.kv, -1, self.width)
        return rows[:, :-2].reshape(-1), rows[:, -2].reshape(-1), rows[:, -1].reshape(-1)


@dataclass(frozen=True, eq=False)
class Projections:
    """Queries, keys and values, each with its bias."""

    heads: Heads
    query: tuple[Matrix, Matrix | None]
    key: tuple[Matrix, Matrix | None]
    value: tuple[Matrix, Matrix | None]

    @staticmethod
    def separate(layer: Layer, names: tuple[str, str, str], heads: Heads, stream: int) -> Projections:
        """From three matrices."""
        query, key, value = names
        return Projections(
            heads,
            layer.linear(query, heads.queries, stream),
            layer.linear(key, heads.keys, stream),
            layer.linear(value, heads.keys, stream),
        )

    @staticmethod
    def fused(layer: Layer, name: str, heads: Heads, stream: int, *, grouped: bool) -> Projections:
        """From one matrix, in the order of :meth:`Heads.grouped` or :meth:`Heads.stacked`."""
        out = heads.queries + 2 * heads.keys
        layer.expect(f"{name}.weight", out, stream)
        query, key, value = (
            layer.linear(name, out, stream, rows) for rows in (heads.grouped() if grouped else heads.stacked())
        )
        return Projections(heads, query, key, value)

    def attention(
        self,
        output: tuple[Matrix, Matrix | None],
        rotary: Rotary | None,
        norms: tuple[Norm | None, Norm | None] = (None, None),
    ) -> Attention:
        """The attention that these feed, with its defaults."""
        return Attention(
            query=self.query[0],
            key=self.key[0],
            value=self.value[0],
            output=output[0],
            heads=self.heads.count,
            kv_heads=self.heads.kv,
            query_bias=self.query[1],
            key_bias=self.key[1],
            value_bias=self.value[1],
            output_bias=output[1],
            query_norm=norms[0],
            key_norm=norms[1],
            rotary=rotary,
        )


def _rows(start: int, end: int) -> IndexArray:
    return np.arange(start, end, dtype=np.int64)
