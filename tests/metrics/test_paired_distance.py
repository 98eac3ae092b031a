from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestige.errors import InvalidInput, ShapeMismatch
from vestige.metrics.paired_distance import feature_distance, pixel_distance, relative_distance


def test_pixel_distance_is_that_of_a_loop_and_spans_zero_to_one() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (5, 3, 4, 2), dtype=np.uint8) for _ in range(2))
    loop = [
        math.sqrt(sum((int(x) - int(y)) ** 2 for x, y in zip(p.flat, q.flat, strict=True)) / 24) / 255
        for p, q in zip(a, b, strict=True)
    ]
    assert pixel_distance(a, b) == pytest.approx(loop)
    assert pixel_distance(a, a).tolist() == [0.0] * 5
    assert pixel_distance(np.zeros_like(a), np.full_like(a, 255)).tolist() == [1.0] * 5


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 99), st.floats(1e-180, 1e150))
def test_feature_distance_is_two_less_twice_the_cosine_whatever_the_length(n: int, d: int, seed: int, k: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(n, d))
    cosine = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(x, y, strict=True)]
    found = feature_distance(x, y)
    assert found == pytest.approx(2 - 2 * np.array(cosine), abs=1e-9)
    assert feature_distance(k * x, y) == pytest.approx(found, abs=1e-9)
    assert feature_distance(y, x) == pytest.approx(found, abs=1e-12)
    assert feature_distance(x, k * x) == pytest.approx(np.zeros(n), abs=1e-12)


def test_features_of_zero_have_no_direction() -> None:
    zero, one = np.zeros((2, 3)), np.eye(3)[:2]
    assert feature_distance(zero, zero).tolist() == [0.0, 0.0]
    assert feature_distance(zero, one).tolist() == [1.0, 1.0]
    assert feature_distance(one, -one) == pytest.approx([4.0, 4.0])


def test_rows_that_are_no_pairs_are_refused() -> None:
    images = np.zeros((2, 1, 3, 3), np.uint8)
    with pytest.raises(ShapeMismatch, match="same rows"):
        pixel_distance(images, images[:1])
    with pytest.raises(ShapeMismatch, match="same shape"):
        pixel_distance(images, images[..., :2])
    with pytest.raises(InvalidInput, match="uint8"):
        pixel_distance(images, images.astype(np.float32))
    with pytest.raises(ShapeMismatch):
        feature_distance(np.ones((2, 3)), np.ones((3, 3)))
    with pytest.raises(InvalidInput, match="columns"):
        feature_distance(np.ones((2, 3)), np.ones((2, 4)))


def test_relative_distance() -> None:
    assert relative_distance(1.0, 4.0) == 0.25
    assert relative_distance(0.0, 0.0) == 0.0
    assert relative_distance(1.0, 0.0) == math.inf
    with pytest.raises(InvalidInput):
        relative_distance(math.nan, 1.0)
