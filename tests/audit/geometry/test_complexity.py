"""PNG size as a measure of complexity, what it explains, and rank correlation against scipy."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import spearmanr

from vestige.audit.geometry.complexity import explained, png_bits, residual, spearman
from vestige.errors import InvalidInput


def test_noise_takes_its_own_bits_and_an_even_image_few():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (1, 3, 32, 32), dtype=np.uint8)
    even = np.full((1, 3, 32, 32), 100, np.uint8)
    bits = png_bits(np.concatenate([noise, even]))
    assert bits[0] >= 8 * noise.size  # noise cannot be compressed
    assert bits[1] < 8 * even.size / 10


def test_the_bits_are_those_of_a_file():
    grey = np.random.default_rng(1).integers(0, 256, (1, 1, 9, 7), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey[0, 0]).save(buffer, format="PNG", optimize=True)
    assert png_bits(grey).tolist() == [8 * len(buffer.getvalue())]


def test_what_is_no_image_is_refused():
    with pytest.raises(InvalidInput):
        png_bits(np.zeros((1, 2, 4, 4), np.uint8))


def test_a_score_that_is_complexity_alone_leaves_nothing():
    rng = np.random.default_rng(2)
    bits = rng.integers(1000, 9000, 300)
    dimension = 4 + bits / 500
    line = explained(bits, dimension)
    assert residual(line, bits, dimension) == pytest.approx(np.zeros(300), abs=1e-9)
    lowered = dimension.copy()
    lowered[:5] -= 3
    assert residual(explained(bits, lowered), bits, lowered)[:5] == pytest.approx(-3.0)


@given(st.integers(5, 40), st.integers(0, 10**6), st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_rank_correlation_is_that_of_scipy(n, seed, ties):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 4, n).astype(float) if ties else rng.normal(size=n)
    y = x + rng.normal(size=n)
    if np.ptp(x) == 0:
        assert np.isnan(spearman(x, y).value)
        return
    found = spearman(x, y)
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    assert -1 <= found.low <= found.value <= found.high <= 1


def test_the_interval_covers_the_truth():
    """Of 300 samples of 30 the 95 % interval misses the rank correlation of a normal pair in at most 30 (3 sigma)."""
    rng = np.random.default_rng(4)
    rho = 0.6
    truth = 6 / np.pi * np.arcsin(rho / 2)
    missed = 0
    for _ in range(300):
        x = rng.normal(size=30)
        y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=30)
        missed += not spearman(x, y).covers(truth)
    assert 2 <= missed <= 30


def test_little_or_nothing_bounds_nothing():
    assert (spearman([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]).low, spearman([1, 2, 3], [1, 2, 3]).high) == (-1.0, 1.0)
    perfect = spearman(np.arange(10), np.arange(10))
    assert (perfect.value, perfect.high) == (pytest.approx(1), 1)
    assert 0.9 < perfect.low < 0.999
    assert spearman(np.arange(10), -np.arange(10)).low == -1
    with pytest.raises(InvalidInput):
        spearman([1.0, 2.0], [1.0])
