"""How the change of an increment is written: each tensor whole, or by the entries that are not zero.

Either way keeps every bit: an entry is left out only if all its bits are 0, so -0.0 and the payload of a NaN are
entries like others. A tensor is written the shorter way; what erasers with a mask leave alone then costs one bit a
weight.

Format 1 is a safetensors file of the tensors under their own names. Format 2, used only where a tensor is shorter by
its entries, puts the way before the name: ``dense/NAME``, or ``mask/NAME`` (uint8, one bit an entry in row-major
order, the first in the highest bit), ``values/NAME`` (the entries whose bit is set) and ``shape/NAME`` (int64).
Format 3 is format 2 with a third way: ``up/NAME`` and ``down/NAME``, for tensors that were made as their
:func:`product`, whose bits are the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

DENSE, SPARSE, FACTORED = 1, 2, 3
FORMATS = (DENSE, SPARSE, FACTORED)

Factors = tuple[Tensor, Tensor]
"""``up`` [out, r] and ``down`` [r, in], whose :func:`product` is a tensor."""

_KEY_BYTES = 80
"""About what the header of a safetensors file spends on a key, beside its name."""
_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integers whose bits stand for those of an entry of that many bytes."""


def product(up: Tensor, down: Tensor) -> Tensor:
    """``up down`` in the precision of ``up``, summed in float64 in a fixed order: the same bits on every machine."""
    total = torch.zeros(len(up), down.shape[1], dtype=torch.float64)
    for column, row in zip(up.detach().cpu().double().unbind(1), down.detach().cpu().double(), strict=True):
        total = total + column[:, None] * row
    return total.to(up.dtype)


def format_of(delta: Mapping[str, Tensor], factors: Mapping[str, Factors] | None = None) -> int:
    """The format in which :func:`write` writes named tensors."""
    if factors:
        return FACTORED
    return SPARSE if any(_sparser(name, value) for name, value in delta.items()) else DENSE


def write(delta: Mapping[str, Tensor], factors: Mapping[str, Factors] | None = None) -> tuple[bytes, int]:
    """The content of a file with named tensors, and its format. ``factors`` stand for tensors that they make up."""
    plain = {name: value.detach().cpu().contiguous() for name, value in delta.items() if name not in (factors or {})}
    sparse = {name for name, value in plain.items() if _sparser(name, value)}
    if not sparse and not factors:
        return save(plain), DENSE
    written: dict[str, Tensor] = {}
    for name, (up, down) in (factors or {}).items():
        written[f"up/{name}"] = up.detach().cpu().contiguous().clone()
        written[f"down/{name}"] = down.detach().cpu().contiguous().clone()
    for name, value in plain.items():
        if name in sparse:
            words = _words(value)
            mask = words != 0
            written[f"mask/{name}"] = torch.from_numpy(np.packbits(mask.numpy()))
            written[f"values/{name}"] = words[mask].view(value.dtype)
            written[f"shape/{name}"] = torch.tensor(value.shape, dtype=torch.int64)
        else:
            written[f"dense/{name}"] = value
    return save(written), FACTORED if factors else SPARSE


def read(content: bytes, version: int) -> dict[str, Tensor]:
    """The named tensors that :func:`write` wrote, bit for bit (ValueError: see :func:`read_factored`)."""
    return read_factored(content, version)[0]


def read_factored(content: bytes, version: int) -> tuple[dict[str, Tensor], dict[str, Factors]]:
    """The same with the factors of those that were written so.

    Raises
    ------
    ValueError : the content is not that of a file of this format; the message says why, for whoever knows the file.
    """
    try:
        found = load(content)
    except (SafetensorError, KeyError, RuntimeError) as error:  # KeyError: a type that torch does not have
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if version == DENSE:
        return found, {}
    ways: dict[str, dict[str, Tensor]] = {}
    for key, value in found.items():
        way, _, name = key.partition("/")
        ways.setdefault(name, {})[way] = value
    factors = {name: _factors(name, parts) for name, parts in ways.items() if "up" in parts or "down" in parts}
    delta = {name: _tensor(name, parts) for name, parts in ways.items() if name not in factors}
    return {**delta, **{name: product(*pair) for name, pair in factors.items()}}, factors


def _words(value: Tensor) -> Tensor:
    """The entries' bits as integers [numel]."""
    return value.contiguous().reshape(-1).view(_WORDS[value.element_size()])


def _sparser(name: str, value: Tensor) -> bool:
    """Whether a tensor is shorter by its entries."""
    if value.element_size() not in _WORDS:
        return False
    entries = int(_words(value.detach()).count_nonzero()) * value.element_size()
    header = 2 * (_KEY_BYTES + len(name.encode()))
    return (value.numel() + 7) // 8 + entries + 8 * value.dim() + header < value.numel() * value.element_size()


def _factors(name: str, parts: Mapping[str, Tensor]) -> Factors:
    up, down = parts.get("up"), parts.get("down")
    if len(parts) != 2 or up is None or down is None:
        raise ValueError(f"{name} is given by {', '.join(sorted(parts))}")
    if up.dim() != 2 or down.dim() != 2 or up.shape[1] != len(down) or not up.is_floating_point():
        raise ValueError(f"the factors of {name} do not fit: {tuple(up.shape)} and {tuple(down.shape)}")
    return up, down


def _tensor(name: str, parts: Mapping[str, Tensor]) -> Tensor:
    ways = sorted(parts)
    if ways == ["dense"]:
        return parts["dense"]
    if ways != ["mask", "shape", "values"]:
        raise ValueError(f"{name} is given by {', '.join(ways)}")
    mask, values, shape = parts["mask"], parts["values"], parts["shape"]
    if (mask.dtype, shape.dtype) != (torch.uint8, torch.int64) or any(part.dim() != 1 for part in parts.values()):
        raise ValueError(f"the mask, values or shape of {name} are no such thing")
    sides: list[int] = shape.tolist()
    count = math.prod(sides)
    if any(side < 1 for side in sides) or mask.numel() != (count + 7) // 8 or values.element_size() not in _WORDS:
        raise ValueError(f"the mask of {name} does not fit its shape {sides}")
    bits = np.unpackbits(mask.numpy())
    chosen = torch.from_numpy(bits[:count]).bool()
    if bits[count:].any() or int(chosen.sum()) != values.numel():
        raise ValueError(f"the mask of {name} does not fit its {values.numel()} values")
    whole = torch.zeros(count, dtype=values.dtype)
    _words(whole)[chosen] = _words(values)
    return whole.reshape(sides)
