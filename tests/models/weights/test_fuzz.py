"""Damaged copies of small valid files: either weights that another library reads alike, or an error of ours."""

from __future__ import annotations

import json
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from vestige.errors import VestigeError
from vestige.models.weights import FileWeights, open_weights

Edits = list[tuple[str, float, int]]
MOST = 4 << 20
"""Bytes that a file of a few hundred bytes may take."""

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "flip", "cut", "insert", "delete", "double", "huge"]),
        st.floats(0, 1),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)
SETTINGS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def damaged(content: bytes, edits: Edits, reach: int) -> bytes:
    """Apply edits at relative places within the first ``reach`` bytes, where the header is."""
    out = bytearray(content)
    for kind, place, value in edits:
        at = min(int(place * min(reach, len(out))), max(0, len(out) - 1))
        if not out:
            break
        if kind == "set":
            out[at] = value
        elif kind == "flip":
            out[at] ^= 1 << (value % 8)
        elif kind == "cut":
            del out[at:]
        elif kind == "insert":
            out[at:at] = bytes([value]) * (1 + value % 9)
        elif kind == "delete":
            del out[at : at + 1 + value % 9]
        elif kind == "double":
            out[at:at] = out[at : at + 8 * (1 + value % 9)]
        else:
            out[at : at + 8] = ((1 << (value % 64)) - (value % 2)).to_bytes(8, "little")
    return bytes(out)


def read_all(path: Path) -> FileWeights | None:
    """All that can be asked of a file; None where it is refused. Memory is bounded."""
    tracemalloc.start()
    try:
        weights = open_weights(path)
        assert isinstance(weights, FileWeights)
        for name in weights.names:
            entry = weights.entry(name)
            values = weights.read(name)
            assert values.shape == entry.shape
            assert values.dtype == np.float32
            assert np.isfinite(values).all()
        _ = weights.digest
        _ = dict(weights.metadata)
        return weights
    except VestigeError:
        return None
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < MOST


def safetensors_file() -> bytes:
    held = {"a": torch.arange(6.0).reshape(2, 3), "bb": torch.ones(4, dtype=torch.bfloat16), "c": torch.zeros(0, 2)}
    return save(held, {"format": "pt"})


@given(edits=EDITS)
@SETTINGS
def test_safetensors(edits: Edits) -> None:
    content = safetensors_file()
    content = damaged(content, edits, 8 + int.from_bytes(content[:8], "little") + 8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        path.write_bytes(content)
        weights = read_all(path)
        if weights is None:
            return
        theirs = load(content)
        assert set(weights.names) == set(theirs)
        for name, tensor in theirs.items():
            np.testing.assert_array_equal(weights.read(name), tensor.float().numpy())


VALUES = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=4),
    st.none(),
    st.booleans(),
    st.lists(st.integers(-3, 2**65), max_size=5),
)
OBJECTS = st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "z"]), VALUES, max_size=4)


@given(head=st.dictionaries(st.sampled_from(["__metadata__", "x", "y"]), st.one_of(VALUES, OBJECTS), max_size=3))
@SETTINGS
def test_any_json_as_a_header(head: dict[str, object]) -> None:
    text = json.dumps(head).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))
        weights = read_all(path)
        assert weights is None or not weights.names or set(load(path.read_bytes())) == set(weights.names)


@given(
    content=st.dictionaries(
        st.sampled_from(["weight_map", "metadata"]), st.one_of(VALUES, st.dictionaries(st.text(max_size=3), VALUES))
    )
)
@SETTINGS
def test_any_json_as_an_index(content: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors.index.json"
        path.write_text(json.dumps(content))
        assert read_all(path) is None


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory, write_gguf: Callable[..., Path], numbers) -> bytes:
    tensors = {"a": (numbers((2, 3)), Kind.F32), "bb": (numbers((2, 64)), Kind.Q4_1), "c": (numbers(5), Kind.F32)}
    values = {"tokens": ["a", "bc", "def"], "scores": [0.5, 1.5], "n": 3, "name": "abc"}
    return write_gguf(tmp_path_factory.mktemp("gguf") / "x.gguf", tensors, values).read_bytes()


@given(edits=EDITS)
@SETTINGS
def test_gguf(edits: Edits, gguf_file: bytes) -> None:
    content = damaged(gguf_file, edits, len(gguf_file) - 200)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.gguf"
        path.write_bytes(content)
        weights = read_all(path)
        if weights is None or not weights.names:
            return
        with np.errstate(all="ignore"):
            theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
            assert set(weights.names) == set(theirs)
            for name, tensor in theirs.items():
                if tensor.tensor_type.name == weights.entry(name).dtype in {"F32", "Q4_1"}:
                    expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
                    np.testing.assert_array_equal(weights.read(name), expected)


@given(content=st.binary(max_size=200))
@SETTINGS
def test_noise_behind_the_magic(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, head in (("x.gguf", b"GGUF\x03\0\0\0"), ("x.safetensors", b"")):
            path = Path(folder) / name
            path.write_bytes(head + content)
            read_all(path)
