from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vestige.metrics.clipped import equivalent_share, expected_clipped_coverage
from vestige.metrics.neighbours import neighbour_metrics


@given(st.integers(0, 300), st.integers(2, 300), st.integers(1, 8))
def test_expectation_is_that_of_the_beta_binomial(good: int, n: int, k: int) -> None:
    k = min(k, n - 1)
    counts = np.arange(good + 1)
    expected = np.sum(stats.betabinom.pmf(counts, good, k, n - k) * np.minimum(counts, k)) / k if good else 0.0
    assert expected_clipped_coverage(good, n, k) == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 500), st.integers(6, 300), st.integers(1, 5), st.floats(0, 1))
def test_the_share_inverts_the_expectation(m: int, n: int, k: int, share: float) -> None:
    good = round(share * m)
    covered = expected_clipped_coverage(good, n, k)
    assert equivalent_share(covered, m, n, k) == pytest.approx(good / m, abs=1e-6)
    assert equivalent_share(min(1, covered + 0.01), m, n, k) >= good / m - 1e-6
    assert equivalent_share(1.0, m, n, k) == 1
    assert equivalent_share(0.0, m, n, k) == 0


@pytest.mark.parametrize("good", [1.0, 0.5, 0.1])
def test_both_read_as_the_share_of_good_rows(good: float) -> None:
    """Some rows of the reference's distribution among rows that lie nowhere near."""
    random = np.random.default_rng(0)
    density, coverage = [], []
    for _ in range(16):
        x, y = random.normal(size=(120, 2)), random.normal(size=(150, 2))
        x[round(good * 120) :] += 1e3
        found = neighbour_metrics(x, y, neighbours=5).clipped
        density.append(found.density.value)
        coverage.append(found.coverage.value)
    for values in (density, coverage):
        # At 1 both are cut, so that their mean falls a little short of it.
        assert np.mean(values) == pytest.approx(good, abs=np.std(values) + 0.02 * (good == 1))


def test_an_outlier_of_the_reference_catches_nothing() -> None:
    """The paper's reason: a lonely reference row has a huge ball, in which density counts whatever comes."""
    random = np.random.default_rng(0)
    y = random.normal(size=(100, 2))
    y[0] = 50
    x = random.normal(30, 0.1, size=(100, 2))
    found = neighbour_metrics(x, y, neighbours=3)
    assert found.fidelity.precision.value == 1
    assert found.density.density.value == pytest.approx(1 / 3)
    assert found.clipped.density.value == 0
