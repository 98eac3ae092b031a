from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vestige.errors import EmptySet, InvalidInput
from vestige.metrics.vendi import vendi_score

seeds = st.integers(0, 10**6)
orders = st.sampled_from([0.0, 0.5, 1.0, 2.0, math.inf])


def naive(rows: np.ndarray, order: float) -> float:
    """From the whole matrix of cosines."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(unit @ unit.T / len(rows))
    values = values[values > 1e-10]
    if order == 1:
        return float(np.exp(-np.sum(values * np.log(values))))
    if math.isinf(order):
        return float(1 / values.max())
    return float(np.sum(values**order) ** (1 / (1 - order)))


@given(st.integers(3, 30), st.integers(1, 30), orders, seeds)
def test_either_way_equals_the_matrix_of_cosines(n: int, d: int, order: float, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(n, d)) + 0.5
    found = vendi_score(rows, order=order)
    assert found.value == pytest.approx(naive(rows, order), rel=1e-6)
    assert found.n == n
    assert found.low <= found.value <= found.high <= min(n, d) + 1e-9


@given(st.integers(2, 12), st.integers(1, 5), orders)
def test_counts_equal_shares_of_different_directions(kinds: int, copies: int, order: float) -> None:
    rows = np.repeat(np.eye(kinds + 1)[:kinds], copies + 1, axis=0)
    for scale in (1.0, 1e-200, 1e100):
        assert vendi_score(rows * scale, order=order).value == pytest.approx(kinds)


def test_equal_rows_amount_to_one() -> None:
    found = vendi_score(np.ones((10, 3)))
    assert (found.value, found.high) == (pytest.approx(1), pytest.approx(1))


def test_interval_is_the_jackknife() -> None:
    """With as many groups as rows, leaving one out can be done naively."""
    for shape in ((12, 4), (8, 20)):
        rows = np.random.default_rng(0).normal(size=shape)
        left = np.array([naive(np.delete(rows, i, axis=0), 1) for i in range(len(rows))])
        n = len(rows)
        half = stats.t.ppf(0.975, n - 1) * math.sqrt((n - 1) / n * np.sum((left - left.mean()) ** 2))
        found = vendi_score(rows, groups=100)
        assert found.high == pytest.approx(min(found.value + half, min(shape)), rel=1e-9)
        assert found.low == pytest.approx(max(found.value - half, 1), rel=1e-9)


def test_what_it_cannot_use() -> None:
    rows = np.eye(4)
    with pytest.raises(InvalidInput, match="order"):
        vendi_score(rows, order=-1)
    with pytest.raises(InvalidInput, match="order"):
        vendi_score(rows, order=math.nan)
    with pytest.raises(InvalidInput, match="1 of 4 rows"):
        vendi_score(np.diag([1.0, 1, 1, 0]))
    with pytest.raises(EmptySet):
        vendi_score(rows[:1])
