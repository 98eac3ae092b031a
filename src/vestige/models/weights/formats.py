"""How numbers are stored, and what they are as float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from vestige.dependencies import need
from vestige.errors import Unsupported
from vestige.models.weights.source import FloatArray

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Format:
    """One way of storing numbers: blocks of ``size`` bytes that hold ``elements`` numbers each.

    ``decode`` turns the bytes [n * size] of n blocks into float32 [n * elements].
    """

    name: str
    elements: int
    size: int
    decode: Callable[[Bytes], FloatArray]


def _plain(name: str, dtype: str) -> Format:
    kind = np.dtype(dtype)

    def decode(raw: Bytes) -> FloatArray:
        return raw.view(kind).astype(np.float32)

    return Format(name, 1, kind.itemsize, decode)


def _upper_half(raw: Bytes) -> FloatArray:
    """bfloat16 is the upper half of a float32."""
    bits = raw.view("<u2").astype(np.uint32)
    bits <<= np.uint32(16)
    return bits.view(np.float32)


def _eight_bits(name: str, exponent: int, mantissa: int, *, has_infinity: bool) -> Format:
    """A float of one sign bit, with IEEE 754's layout and subnormal numbers.

    With infinity the highest exponent stands for it and NaN; without, only the pattern of all ones is NaN
    (Micikevicius et al. 2022, arXiv 2209.05433, tables 1 and 2).
    """
    codes = np.arange(256)
    power = (codes >> mantissa) & ((1 << exponent) - 1)
    fraction = codes & ((1 << mantissa) - 1)
    bias = (1 << (exponent - 1)) - 1
    steps = np.where(power == 0, fraction, fraction + (1 << mantissa))
    values = np.ldexp(steps.astype(np.float64), np.maximum(power, 1) - bias - mantissa)
    highest = power == (1 << exponent) - 1
    if has_infinity:
        values[highest] = np.where(fraction[highest] == 0, np.inf, np.nan)
    else:
        values[highest & (fraction == (1 << mantissa) - 1)] = np.nan
    table = np.where(codes < 128, values, -values).astype(np.float32)
    return Format(name, 1, 1, lambda raw: table[raw])


SAFETENSORS = {
    format.name: format
    for format in (
        _plain("F64", "<f8"),
        _plain("F32", "<f4"),
        _plain("F16", "<f2"),
        Format("BF16", 1, 2, _upper_half),
        _eight_bits("F8_E4M3", 4, 3, has_infinity=False),
        _eight_bits("F8_E5M2", 5, 2, has_infinity=True),
        _plain("I64", "<i8"),
        _plain("I32", "<i4"),
        _plain("I16", "<i2"),
        _plain("I8", "|i1"),
        _plain("U64", "<u8"),
        _plain("U32", "<u4"),
        _plain("U16", "<u2"),
        _plain("U8", "|u1"),
        _plain("BOOL", "|u1"),
    )
}
"""By the name that a safetensors header gives it. Integers above 2^24 lose their last digits."""


def _quantised(name: str, elements: int, size: int) -> Format:
    def decode(raw: Bytes) -> FloatArray:
        quants = need("gguf", "gguf.quants")
        kind = getattr(need("gguf", "gguf").GGMLQuantizationType, name, None)
        try:
            if kind is None:
                raise NotImplementedError(f"{name} is unknown to it")
            # One row, since the package takes rows in small groups and that costs most of its time.
            return cast("FloatArray", quants.dequantize(raw.reshape(1, -1), kind)).reshape(-1)
        except NotImplementedError as error:
            raise Unsupported(
                f"The installed package gguf cannot dequantise {name} ({error}).",
                expected="a quantisation that it can.",
                remedy="update the package gguf, or take the model in another quantisation, such as Q8_0.",
            ) from error

    return Format(name, elements, size, decode)


GGUF = {
    0: SAFETENSORS["F32"],
    1: SAFETENSORS["F16"],
    2: _quantised("Q4_0", 32, 18),
    3: _quantised("Q4_1", 32, 20),
    6: _quantised("Q5_0", 32, 22),
    7: _quantised("Q5_1", 32, 24),
    8: _quantised("Q8_0", 32, 34),
    9: _quantised("Q8_1", 32, 40),
    10: _quantised("Q2_K", 256, 84),
    11: _quantised("Q3_K", 256, 110),
    12: _quantised("Q4_K", 256, 144),
    13: _quantised("Q5_K", 256, 176),
    14: _quantised("Q6_K", 256, 210),
    15: _quantised("Q8_K", 256, 292),
    16: _quantised("IQ2_XXS", 256, 66),
    17: _quantised("IQ2_XS", 256, 74),
    18: _quantised("IQ3_XXS", 256, 98),
    19: _quantised("IQ1_S", 256, 50),
    20: _quantised("IQ4_NL", 32, 18),
    21: _quantised("IQ3_S", 256, 110),
    22: _quantised("IQ2_S", 256, 82),
    23: _quantised("IQ4_XS", 256, 136),
    24: SAFETENSORS["I8"],
    25: SAFETENSORS["I16"],
    26: SAFETENSORS["I32"],
    27: SAFETENSORS["I64"],
    28: SAFETENSORS["F64"],
    29: _quantised("IQ1_M", 256, 56),
    30: SAFETENSORS["BF16"],
    34: _quantised("TQ1_0", 256, 54),
    35: _quantised("TQ2_0", 256, 66),
    39: _quantised("MXFP4", 32, 17),
    40: _quantised("NVFP4", 64, 36),
    41: _quantised("Q1_0", 128, 18),
}
"""By the number that a GGUF file gives it; the quantised ones are decoded by the package gguf."""
