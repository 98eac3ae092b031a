"""Weights in memory: torch and numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vestige.errors import BadWeights, Unsupported
from vestige.models.weights import MemoryWeights, open_weights


def test_a_module_is_its_state_dict() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)).bfloat16()
    weights = open_weights(module)
    assert weights.names == tuple(sorted(module.state_dict()))
    assert weights.entry("0.weight").dtype == "BF16"
    np.testing.assert_array_equal(weights.read("0.weight"), module[0].weight.detach().float().numpy())
    assert weights.digest == open_weights(module.state_dict()).digest


def test_what_is_read_is_a_copy() -> None:
    held = {"t": torch.ones(3, 2), "n": np.ones((3, 2), np.float32)}
    weights = MemoryWeights(held)
    for name in held:
        weights.read(name)[:] = 7
        weights.read(name, np.array([1]))[:] = 7
        assert float(held[name].sum()) == 6


def test_transposed_and_numpy_are_row_major() -> None:
    base = np.arange(12, dtype=np.float64).reshape(3, 4)
    weights = MemoryWeights({"t": torch.from_numpy(base).T, "n": base.T})
    for name in ("t", "n"):
        read = weights.read(name)
        assert read.flags.c_contiguous
        np.testing.assert_array_equal(read, base.T)
        np.testing.assert_array_equal(weights.read(name, np.array([3, 0, 3])), base.T[[3, 0, 3]])
    assert weights.tensor_digest("t") == weights.tensor_digest("n")


def test_what_has_no_values_or_no_format() -> None:
    with pytest.raises(BadWeights, match="meta"):
        MemoryWeights({"x": torch.empty(2, device="meta")})
    for odd in (torch.ones(2, dtype=torch.complex64), np.array(["a"]), np.ones(2, ">f4")):
        with pytest.raises(Unsupported):
            MemoryWeights({"x": odd})
