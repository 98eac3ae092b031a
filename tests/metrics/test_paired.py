from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from vestige.errors import InvalidInput
from vestige.metrics.paired import auc_difference, discordance, holm, mcnemar
from vestige.metrics.roc import auc


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    expected = 1.0 if first + second == 0 else binomtest(first, first + second, 0.5).pvalue
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(first, second) == mcnemar(second, first)


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_interval_of_the_difference_agrees_with_the_test(first: int, second: int) -> None:
    found = discordance(first, second)
    assert (found.value, found.n) == (first - second, first + second)
    assert found.low <= found.value <= found.high
    assert found.covers(0) == (mcnemar(first, second) >= 0.05)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_the_difference_of_areas_is_that_of_the_areas() -> None:
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(0.7, 1, (2, 40)).round(1), rng.normal(0, 1, (2, 30)).round(1)
    found = auc_difference((inside[0], inside[1]), (outside[0], outside[1]))
    assert found.value == pytest.approx(auc(inside[0], outside[0]).value - auc(inside[1], outside[1]).value)
    back = auc_difference((inside[1], inside[0]), (outside[1], outside[0]))
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_its_variance_is_that_of_many_worlds() -> None:
    rng = np.random.default_rng(1)
    values, halves = [], []
    for _ in range(300):
        shared = rng.normal(size=90)
        truth = np.repeat([0.8, 0.0], [50, 40])
        scores = [truth + shared + 0.5 * rng.normal(size=90) for _ in range(2)]
        found = auc_difference((scores[0][:50], scores[1][:50]), (scores[0][50:], scores[1][50:]))
        values.append(found.value)
        halves.append(found.high - found.value)
    covered = np.mean(np.abs(values) <= np.array(halves))
    assert 0.92 < covered < 0.985
    assert np.mean(halves) / 1.99 == pytest.approx(np.std(values), rel=0.1)


def test_one_order_of_all_rows_leaves_no_difference() -> None:
    inside, outside = np.array([3.0, 1.0, 2.0]), np.array([0.0, 2.5])
    found = auc_difference((inside, inside * 2), (outside, outside * 2))
    assert (found.value, found.low, found.high, found.n) == (0, 0, 0, 5)


def test_rows_that_are_not_paired_are_refused() -> None:
    with pytest.raises(InvalidInput, match="the same rows"):
        auc_difference(([1.0, 2.0], [1.0]), ([0.0, 1.0], [0.0, 1.0]))
    with pytest.raises(InvalidInput, match="at least 0"):
        mcnemar(-1, 2)
