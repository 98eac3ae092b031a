from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from vestige.erase.encoding import DENSE, FACTORED, SPARSE, format_of, product, read, read_factored, write

INTEGERS = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}
SHAPES = st.lists(st.integers(0, 9), max_size=3).map(tuple)


def words(value: Tensor) -> Tensor:
    return value.contiguous().reshape(-1).view(INTEGERS[value.dtype])


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any bit patterns (NaNs with payloads, -0.0 and infinities among them), any share of them all zero."""
    kind = draw(st.sampled_from(list(INTEGERS)))
    shape = draw(SHAPES)
    random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    width = torch.empty(0, dtype=kind).element_size()
    # Some tensors are long, so that leaving entries out pays.
    shape = (*shape, draw(st.sampled_from([1, 7, 300])))
    bits = random.integers(0, 256, (math.prod(shape), width), np.uint8)
    bits[random.random(len(bits)) < draw(st.sampled_from([0.0, 0.5, 0.97, 1.0]))] = 0
    return torch.from_numpy(bits.reshape(-1)).view(kind).reshape(shape) if bits.size else torch.zeros(shape, dtype=kind)


@given(st.dictionaries(st.text(max_size=8).filter(lambda name: name != "__metadata__"), tensors(), max_size=4))
def test_every_bit_of_every_tensor_comes_back(delta: dict[str, Tensor]) -> None:
    content, version = write(delta)
    back = read(content, version)
    assert version == format_of(delta)
    assert set(back) == set(delta)
    for name, value in delta.items():
        assert (back[name].dtype, back[name].shape) == (value.dtype, value.shape)
        assert torch.equal(words(back[name]), words(value))
    dense = save({name: value.contiguous() for name, value in delta.items()})
    assert (version == DENSE) == (content == dense)
    # "dense/" before the names of the others is all that a file of the second format can lose.
    assert len(content) <= len(dense) + 8 * len(delta)


@pytest.mark.parametrize("kind", list(INTEGERS))
def test_signs_of_zero_and_payloads_of_nan_are_entries(kind: torch.dtype) -> None:
    value = torch.zeros(40, 50, dtype=kind)
    value[3, 4] = -0.0
    # A signalling NaN with a payload: all exponent bits, a fraction that is not the default's.
    words(value)[7] = words(torch.tensor([torch.inf], dtype=kind))[0] + 5
    content, version = write({"weight": value})
    assert version == SPARSE
    assert load(content)["values/weight"].numel() == 2
    assert torch.equal(words(read(content, version)["weight"]), words(value))


def test_a_tensor_is_written_the_shorter_way() -> None:
    random = torch.Generator().manual_seed(0)
    full, few = torch.randn(64, 64, generator=random), torch.zeros(64, 64)
    few.view(-1)[::10] = 1.0
    assert write({"a": full})[1] == DENSE
    content, version = write({"a": full, "b": few})
    assert version == SPARSE
    assert set(load(content)) == {"dense/a", "mask/b", "values/b", "shape/b"}
    assert len(content) < len(save({"a": full, "b": few})) - 0.85 * 4 * few.numel() + few.numel() / 8 + 500
    # A mask costs one bit an entry, so it pays where more than 1 of 32 entries is zero: here about 3 % against 6 %.
    for every, wanted in ((33, DENSE), (16, SPARSE)):
        holes = torch.ones(1 << 16)
        holes[::every] = 0.0
        assert format_of({"a": holes}) == wanted
    # A view that is not contiguous is written in row-major order.
    for value in (few, full):
        assert torch.equal(read(*write({"b": value.t()}))["b"], value.t())


def test_names_that_look_like_parts_stay_apart() -> None:
    delta = {"mask/a": torch.ones(3), "a": torch.zeros(5000), "dense/a": torch.zeros(2), "": torch.zeros(5000)}
    delta["a"][9] = 1.0
    back = read(*write(delta))
    assert set(back) == set(delta)
    assert all(torch.equal(back[name], value) for name, value in delta.items())


def parts(**changed: Tensor | None) -> bytes:
    """A file of the second format with a part exchanged or left out."""
    whole = torch.zeros(30, 101)
    whole[2, ::3] = 1.5
    found: dict[str, Tensor | None] = {**load(write({"w": whole})[0]), **{f"{k}/w": v for k, v in changed.items()}}
    return save({name: value for name, value in found.items() if value is not None})


LENGTH = 30 * 101


@pytest.mark.parametrize(
    "content",
    [
        parts(mask=None),
        parts(shape=None),
        parts(values=None),
        parts(dense=torch.zeros(2)),
        parts(extra=torch.zeros(2)),
        parts(mask=torch.zeros((LENGTH + 7) // 8, dtype=torch.uint8)),
        parts(mask=torch.full(((LENGTH + 7) // 8,), 255, dtype=torch.uint8)),
        parts(mask=torch.zeros(3, dtype=torch.uint8)),
        parts(mask=torch.zeros(LENGTH)),
        parts(values=torch.ones(33)),
        parts(values=torch.ones(34, 1)),
        parts(shape=torch.tensor([30, 102])),
        parts(shape=torch.tensor([-30, -101])),
        parts(shape=torch.tensor([0, 1 << 62, 1 << 62])),
        parts(shape=torch.tensor([30.0, 101.0])),
        parts()[:-1],
        b"",
        b"\xff" * 64,
    ],
)
def test_what_is_no_file_of_ours_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"\bw\b|Error"):
        read(content, SPARSE)


def test_bits_beyond_the_last_entry_are_refused() -> None:
    mask = load(parts())["mask/w"].clone()
    mask[-1] |= 1
    assert LENGTH % 8 != 0
    with pytest.raises(ValueError, match="does not fit"):
        read(parts(mask=mask), SPARSE)


def test_factors_are_written_in_place_of_their_product_and_give_its_bits():
    rng = np.random.default_rng(0)
    up, down = (torch.from_numpy(rng.standard_normal(size).astype(np.float32)) for size in ((40, 3), (3, 50)))
    delta = {"low": product(up, down), "other": torch.ones(4)}
    torch.testing.assert_close(delta["low"].double(), up.double() @ down.double())
    content, version = write(delta, {"low": (up, down)})
    assert version == FACTORED == format_of(delta, {"low": (up, down)})
    assert len(content) < 40 * 50 * 4
    back, factors = read_factored(content, version)
    assert all(torch.equal(back[name], value) for name, value in delta.items())
    assert list(factors) == ["low"]
    with pytest.raises(ValueError, match="do not fit"):
        read_factored(write(delta, {"low": (up[:, :2], down)})[0], FACTORED)
