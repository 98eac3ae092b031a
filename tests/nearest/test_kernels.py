from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.nearest import kernels, topk
from vestige.nearest.exact import blocks
from vestige.nearest.kernels import BLAS, FLOAT32, INT8, Kernel

CPU = torch.device("cpu")
seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=20)
@given(seeds, seeds, st.integers(1, 18), st.integers(1, 9), st.sampled_from([1, 7, 8, 1025, 8193]), seeds)
def test_every_kernel_gives_the_integers_of_brute_force(brute, images, one, two, n, m, d, extra):
    queries, rows = images(one, n, d), images(two, m, d)
    expected = brute(queries, rows)
    for kernel in (INT8, BLAS, FLOAT32):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "fastest", lambda device, work, kernel=kernel: kernel)
            budget = 96 + 2 * 12 * min(d, kernel.columns) + extra % 300_000
            for block in blocks(queries, rows, budget=budget):
                assert (block.distance2.numpy() == expected[block.query, block.row]).all(), kernel.name


@pytest.mark.parametrize("kernel", [INT8, BLAS, FLOAT32])
def test_extremes_over_all_columns(kernel, monkeypatch):
    monkeypatch.setattr(kernels, "fastest", lambda device, work: kernel)
    black, white = np.zeros((1, 131_073), np.uint8), np.full((2, 131_073), 255, np.uint8)
    (block,) = blocks(black, white)
    assert block.distance2.tolist() == [[65025 * 131_073] * 2]
    assert topk(white, white, 2).index.tolist() == [[0, 1], [0, 1]]


def test_a_kernel_that_saturates_or_fails_is_not_taken(monkeypatch):
    def saturated(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return (left.float() @ right.T.float()).clamp(-(2**23), 2**23).int()

    def missing(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("not implemented for this device")

    for multiply in (saturated, missing):
        bad = Kernel("bad", torch.int8, 1024, multiply)
        assert not kernels.proves_exact(bad, CPU)
        monkeypatch.setattr(kernels, "INT8", bad)
        assert "bad" not in [kernel.name for kernel, _ in kernels._measured.__wrapped__(CPU, 0)]
    assert all(kernels.proves_exact(kernel, CPU) for kernel in (INT8, BLAS, FLOAT32))


def test_the_fastest_is_taken_and_short_searches_are_not_measured(monkeypatch):
    monkeypatch.setattr(kernels, "_measured", lambda device, threads: ((FLOAT32, 1.0), (INT8, 0.25), (BLAS, 0.5)))
    monkeypatch.setattr(kernels, "_measured_float", lambda device, threads: ((FLOAT32, 1.0), (BLAS, 0.5)))
    assert kernels.fastest(CPU, 1 << 40) is INT8
    assert kernels.fastest_float(CPU, 1 << 40) is BLAS
    assert kernels.speed_of_integers(CPU, 1 << 40) == 2
    assert kernels.fastest(CPU, 1) is kernels.fastest_float(CPU, 1) is FLOAT32
    assert kernels.speed_of_integers(CPU, 1) == 1
