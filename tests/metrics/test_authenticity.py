from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vestige.errors import InvalidInput
from vestige.metrics.authenticity import Training, authenticity, distinct
from vestige.metrics.interval import clopper_pearson

seeds = st.integers(0, 10**6)


def naive(x: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nearest distance, its index and authenticity, over distinct training rows."""
    distances = np.linalg.norm(x[:, None] - t[None], axis=2)
    own = np.linalg.norm(t[:, None] - t[None], axis=2)
    own[own == 0] = np.inf
    index = distances.argmin(axis=1)
    return distances.min(axis=1), index, distances.min(axis=1) > own.min(axis=1)[index]


@given(st.integers(1, 20), st.integers(3, 20), st.integers(1, 4), st.booleans(), seeds)
def test_equals_its_definition(m: int, t: int, d: int, copies: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, training = random.normal(size=(m, d)), random.normal(size=(t, d))
    if copies:
        training[1], x[0] = training[0], training[0]
    found = authenticity(x, Training.of(training))
    nearest, index, authentic = naive(x, training)
    np.testing.assert_allclose(found.nearest, nearest, rtol=1e-12)
    np.testing.assert_array_equal(found.index, index)
    np.testing.assert_array_equal(found.authentic, authentic)
    assert found.share == clopper_pearson(int(authentic.sum()), m)
    assert found.copies == clopper_pearson(int((nearest == 0).sum()), m)


def test_copies_are_not_authentic_however_often_they_stand_in_the_data() -> None:
    training = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    training[:10] = training[0]
    x = np.concatenate([training[:1], training[:1] + np.float32(1e-3), training[20:21]])
    found = authenticity(x, Training.of(training))
    assert not found.authentic.any()
    assert found.copies.value == pytest.approx(2 / 3)
    np.testing.assert_array_equal(found.index, [0, 0, 20])


def test_fresh_rows_are_authentic_half_of_the_time() -> None:
    random = np.random.default_rng(0)
    found = authenticity(random.normal(size=(500, 4)), Training.of(random.normal(size=(500, 4))))
    assert 0.4 < found.share.value < 0.65


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_distinct_rows_keep_their_first_place(kind: type) -> None:
    rows = np.array([[0.0, 1], [-0.0, 1], [2, 3], [0, 1], [2, 4]], dtype=kind)
    np.testing.assert_array_equal(distinct(rows), [0, 2, 4])


def test_training_rows_that_are_all_equal() -> None:
    with pytest.raises(InvalidInput, match="All 4 rows of training features are equal"):
        Training.of(np.ones((4, 2)))
    with pytest.raises(InvalidInput, match="columns"):
        authenticity(np.zeros((2, 3)), Training.of(np.eye(4)))
