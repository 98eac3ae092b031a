"""Tensors that are in memory already: a module's or a table of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from vestige.errors import BadWeights, Unsupported
from vestige.models.weights.formats import SAFETENSORS
from vestige.models.weights.source import (
    Entry,
    FloatArray,
    IndexArray,
    WeightSource,
    checked_rows,
    finite,
    no_such_tensor,
)

if TYPE_CHECKING:
    from torch import Tensor

    Held: TypeAlias = Tensor | npt.NDArray[Any]

_HERE = "the weights in memory"
_WINDOW = 1 << 22
_TORCH = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.float8_e5m2": "F8_E5M2",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.int16": "I16",
    "torch.int8": "I8",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
}
_NUMPY = {
    "<f8": "F64",
    "<f4": "F32",
    "<f2": "F16",
    "<i8": "I64",
    "<i4": "I32",
    "<i2": "I16",
    "|i1": "I8",
    "<u8": "U64",
    "<u4": "U32",
    "<u2": "U16",
    "|u1": "U8",
    "|b1": "BOOL",
}


@dataclass(frozen=True, eq=False)
class MemoryWeights(WeightSource):
    """A state dict: named torch tensors or numpy arrays, on any device. What is read is a copy.

    Its digest equals that of a file to which the same tensors were saved.

    Raises
    ------
    Unsupported : a tensor is stored in a way that safetensors cannot hold. BadWeights : one has no values.
    """

    tensors: Mapping[str, Held]
    said: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        for name, held in self.tensors.items():
            if _format(held) is None:
                raise Unsupported(
                    f"The tensor {name!r} is stored as {held.dtype}.",
                    expected=f"one of {', '.join(sorted({*_TORCH.values(), *_NUMPY.values()}))}.",
                    remedy="turn the model into floats with .float().",
                )
            if getattr(held, "is_meta", False):
                raise BadWeights(
                    f"The tensor {name!r} is on the device 'meta' and has no values.",
                    expected="weights with values.",
                    remedy="load the model's weights first.",
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all tensors, sorted."""
        return tuple(sorted(self.tensors))

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What was given beside the tensors."""
        return self.said

    def entry(self, name: str) -> Entry:
        """Shape, format and size of a tensor. Raises NotFound."""
        held = self._held(name)
        format = SAFETENSORS[cast("str", _format(held))]
        shape = tuple(int(n) for n in held.shape)
        return Entry(shape, format.name, int(np.prod(shape, dtype=np.int64)) * format.size)

    def read(self, name: str, rows: IndexArray | None = None) -> FloatArray:
        """A tensor as float32, or rows of it; see :class:`WeightSource`."""
        held = self._held(name)
        if rows is not None:
            rows = checked_rows(name, tuple(held.shape), rows)
        if isinstance(held, np.ndarray):
            with np.errstate(over="ignore"):
                out = (held if rows is None else held[rows]).astype(np.float32, order="C")
        else:
            import torch

            chosen = held.detach() if rows is None else held.detach()[torch.from_numpy(rows).to(held.device)]
            out = cast("FloatArray", chosen.to("cpu", torch.float32, copy=True).contiguous().numpy())
        finite(out, name, _HERE)
        return out

    def stored(self, name: str) -> Iterator[bytes]:
        """The bytes of a tensor in row-major order, in pieces. Raises NotFound."""
        held = self._held(name)
        if isinstance(held, np.ndarray):
            raw = np.ascontiguousarray(held).reshape(-1).view(np.uint8)
        else:
            import torch

            raw = held.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        for start in range(0, raw.size, _WINDOW):
            yield raw[start : start + _WINDOW].tobytes()

    def _held(self, name: str) -> Held:
        held = self.tensors.get(name)
        if held is None:
            raise no_such_tensor(name, _HERE)
        return held


def _format(held: Held) -> str | None:
    return _NUMPY.get(held.dtype.str) if isinstance(held, np.ndarray) else _TORCH.get(str(held.dtype))
