"""Small files of weights, written by other libraries."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

QUANTISED = {Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1}


@pytest.fixture(scope="session")
def write_gguf() -> Callable[..., Path]:
    """``write_gguf(path, {name: (array, kind)}, values)`` by the package gguf; returns the path."""

    def write(path: Path, tensors: Mapping[str, tuple[Any, Kind]], values: Mapping[str, Any] | None = None) -> Path:
        writer = gguf.GGUFWriter(path, "llama")
        for name, value in (values or {}).items():
            if isinstance(value, list):
                writer.add_array(name, value)
            elif isinstance(value, str):
                writer.add_string(name, value)
            elif isinstance(value, float):
                writer.add_float32(name, value)
            else:
                writer.add_uint32(name, value)
        for name, (array, kind) in tensors.items():
            plain = kind in (Kind.F32, Kind.F16, Kind.F64, Kind.I8, Kind.I16, Kind.I32, Kind.I64)
            writer.add_tensor(
                name, array if plain else gguf.quants.quantize(array, kind), raw_dtype=None if plain else kind
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write


@pytest.fixture(scope="session")
def numbers() -> Callable[..., Any]:
    """``numbers(shape, seed)``: standard normal float32."""
    return lambda shape, seed=0: np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="session")
def peak() -> Callable[[Callable[[], Any]], tuple[Any, int]]:
    """``peak(call)``: the call's answer and the most bytes that it held at once."""

    def measure(call: Callable[[], Any]) -> tuple[Any, int]:
        tracemalloc.start()
        try:
            answer = call()
            return answer, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure
