from __future__ import annotations

import math
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg, stats

from vestige.errors import EmptySet, InvalidInput
from vestige.metrics.frechet import Gaussian, frechet_distance, frechet_interval, kernel_distance

EXACT = 10**9
seeds = st.integers(0, 10**6)


def by_sqrtm(first: Gaussian, second: Gaussian) -> float:
    root = linalg.sqrtm(first.cov @ second.cov)
    shift = first.mean - second.mean
    return float(shift @ shift + np.trace(first.cov + second.cov) - 2 * np.trace(root).real)


def random_gaussian(random: np.random.Generator, d: int) -> Gaussian:
    factor = random.normal(size=(d, d))
    return Gaussian(random.normal(size=d), factor @ factor.T + 0.05 * np.eye(d), EXACT)


@given(st.integers(1, 40), st.integers(2, 60), seeds)
def test_fit_is_the_mean_and_covariance(d: int, n: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(3, 2, size=(n, d)).astype(np.float32)
    found = Gaussian.fit(rows)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(found.cov, np.cov(rows, rowvar=False, dtype=np.float64).reshape(d, d), atol=1e-12)
    np.testing.assert_allclose(found.root @ found.root.T, found.cov, atol=1e-12 * max(1, np.abs(found.cov).max()))
    assert (found.n, found.root.shape) == (n, (d, min(d, n - 1)))


def test_fit_joins_blocks_and_survives_a_large_offset() -> None:
    rows = np.random.default_rng(0).normal(size=(10_000, 3)) + 1e6
    np.testing.assert_allclose(Gaussian.fit(rows).cov, np.cov(rows, rowvar=False), rtol=1e-9, atol=1e-11)


@given(st.integers(1, 12), seeds)
def test_equals_the_matrix_square_root(d: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    one, two = random_gaussian(random, d), random_gaussian(random, d)
    assert frechet_distance(one, two) == pytest.approx(by_sqrtm(one, two), rel=1e-8, abs=1e-8)
    assert frechet_distance(one, two) == pytest.approx(frechet_distance(two, one), rel=1e-9, abs=1e-9)


@given(st.lists(st.tuples(*[st.floats(-5, 5)] * 2, *[st.floats(0, 5)] * 2), min_size=1, max_size=8))
def test_diagonal_gaussians_have_a_closed_form(axes: list[tuple[float, float, float, float]]) -> None:
    m1, m2, s1, s2 = np.array(axes).T
    found = frechet_distance(Gaussian(m1, np.diag(s1**2), EXACT), Gaussian(m2, np.diag(s2**2), EXACT))
    assert found == pytest.approx(np.sum((m1 - m2) ** 2 + (s1 - s2) ** 2), abs=1e-6)


@given(st.integers(2, 10), seeds)
def test_rotation_shift_and_scale(d: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(30, d)), 2 * random.normal(size=(25, d)) + 1
    turn = np.linalg.qr(random.normal(size=(d, d)))[0]
    base = frechet_distance(Gaussian.fit(x), Gaussian.fit(y))
    moved = frechet_distance(Gaussian.fit(3 * x @ turn + 7), Gaussian.fit(3 * y @ turn + 7))
    assert moved == pytest.approx(9 * base, rel=1e-8)


def test_equal_gaussians_are_at_distance_zero() -> None:
    for n in (5, 30, 400):
        one = Gaussian.fit(np.random.default_rng(0).normal(size=(n, 60)))
        assert 0 <= frechet_distance(one, one) < 1e-6 * np.trace(one.cov)


def test_fewer_rows_than_features() -> None:
    """The trace term is the nuclear norm of the product of the centred data matrices: another route to it."""
    random = np.random.default_rng(0)
    for m, n in ((5, 8), (5, 300), (300, 5), (2, 2)):
        x, y = random.normal(size=(m, 50)), random.normal(0.5, 2, size=(n, 50))
        one, two = Gaussian.fit(x), Gaussian.fit(y)
        product = (x - one.mean) @ (y - two.mean).T / math.sqrt((m - 1) * (n - 1))
        shift = np.sum((one.mean - two.mean) ** 2)
        truth = shift + np.trace(one.cov) + np.trace(two.cov) - 2 * np.linalg.svd(product, compute_uv=False).sum()
        assert frechet_distance(one, two) == pytest.approx(truth, rel=1e-12)


def test_constant_features_are_fine() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 4))
    padded = np.hstack([rows, np.full((50, 3), 0.25)])
    distance = frechet_distance(Gaussian.fit(rows[:25]), Gaussian.fit(rows[25:]))
    assert frechet_distance(Gaussian.fit(padded[:25]), Gaussian.fit(padded[25:])) == pytest.approx(distance, rel=1e-9)


def test_gaussian_refuses() -> None:
    with pytest.raises(InvalidInput, match="symmetric"):
        Gaussian(np.zeros(2), np.array([[1.0, 0.5], [0.0, 1.0]]), 10)
    with pytest.raises(InvalidInput):
        Gaussian(np.zeros(3), np.eye(2), 10)
    with pytest.raises(EmptySet):
        Gaussian.fit(np.zeros((1, 4)))
    with pytest.raises(InvalidInput, match="NaN"):
        Gaussian.fit(np.array([[0.0], [math.nan]]))
    with pytest.raises(InvalidInput, match="columns"):
        frechet_distance(Gaussian(np.zeros(2), np.eye(2), 9), Gaussian(np.zeros(3), np.eye(3), 9))


def test_interval_is_the_grouped_jackknife() -> None:
    """With as many groups as rows, leaving one out can be refitted naively."""
    random = np.random.default_rng(0)
    rows, reference = random.normal(size=(12, 3)), random_gaussian(random, 3)
    found = frechet_interval(rows, reference, seed=0, groups=100)
    left = [frechet_distance(Gaussian.fit(np.delete(rows, i, axis=0)), reference) for i in range(12)]
    half = stats.t.ppf(0.975, 11) * math.sqrt(11 / 12 * np.sum((left - np.mean(left)) ** 2))
    assert found.value == frechet_distance(Gaussian.fit(rows), reference)
    assert (found.low, found.high) == pytest.approx((max(0, found.value - half), found.value + half), rel=1e-9)
    assert found.n == 12
    assert frechet_interval(rows, reference, seed=0, groups=3) == frechet_interval(rows, reference, seed=0, groups=3)
    assert frechet_interval(rows, reference, seed=0, groups=3) != frechet_interval(rows, reference, seed=1, groups=3)


def test_interval_covers_the_distance_expected_at_its_size() -> None:
    random = np.random.default_rng(1)
    reference = Gaussian(np.array([0.5, 0, 0]), np.diag([1.0, 2.0, 0.5]), EXACT)
    samples = random.normal(size=(400, 80, 3))
    expected = np.mean([frechet_distance(Gaussian.fit(sample), reference) for sample in samples])
    covered = np.mean([frechet_interval(s, reference, seed=0).covers(expected) for s in samples[:80]])
    assert covered >= 0.9


def kernel(x: np.ndarray, y: np.ndarray) -> float:
    return float((x @ y / len(x) + 1) ** 3)


def naive_kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    m, n = len(x), len(y)
    within_x = sum(kernel(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    within_y = sum(kernel(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return within_x + within_y - 2 * sum(kernel(a, b) for a in x for b in y) / (m * n)


@given(st.integers(3, 12), st.integers(3, 12), st.integers(1, 5), st.integers(1, 15), seeds)
def test_kernel_distance_is_the_sum_over_pairs(m: int, n: int, d: int, block: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(m, d)), random.normal(0.5, 1, size=(n, d))
    found, swapped = kernel_distance(x, y, block=block), kernel_distance(y, x)
    assert found.value == pytest.approx(naive_kernel_distance(x, y), rel=1e-9, abs=1e-9)
    assert (found.low, found.high) == pytest.approx((swapped.low, swapped.high), rel=1e-9, abs=1e-9)
    assert found.n == m + n


@given(st.floats(0, 2), st.integers(1, 20), seeds)
def test_kernel_interval_takes_the_larger_of_two_variances(shift: float, block: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(7, 2)), random.normal(shift, 1, size=(6, 2))
    left_x = np.array([naive_kernel_distance(np.delete(x, i, 0), y) for i in range(7)])
    left_y = np.array([naive_kernel_distance(x, np.delete(y, i, 0)) for i in range(6)])
    jackknife = 6 / 7 * np.sum((left_x - left_x.mean()) ** 2) + 5 / 6 * np.sum((left_y - left_y.mean()) ** 2)
    degenerate = 0.0
    for one, two, weight in ((x, x, 2), (y, y, 2), (x, y, 4)):
        values = np.array([[kernel(a, b) for b in two] for a in one])
        if one is two:
            np.fill_diagonal(values, np.nan)
        rows, columns = np.nanmean(values, axis=1), np.nanmean(values, axis=0)
        centred = np.nanmean(values**2) - np.mean(rows**2) - np.mean(columns**2) + np.nanmean(values) ** 2
        degenerate += weight * max(0, centred) / np.sum(~np.isnan(values))
    found = kernel_distance(x, y, block=block)
    expected = stats.t.ppf(0.975, 5) * math.sqrt(max(jackknife, degenerate))
    assert found.high - found.value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("family", [stats.norm, stats.uniform])
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.6, 1.0), (0.0, 1.5)])
def test_kernel_distance_is_unbiased_and_covers_its_closed_form(
    family: stats.rv_continuous, shift: float, scale: float
) -> None:
    """In one dimension the distance is the sum over j of C(3, j) (E x^j - E y^j)^2."""
    moments = [family(0, 1).moment(j) - family(shift, scale).moment(j) for j in range(4)]
    truth = sum(comb(3, j) * moments[j] ** 2 for j in range(4))
    random = np.random.default_rng(0)
    x = family(shift, scale).rvs((120, 90, 1), random_state=random)
    y = family(0, 1).rvs((120, 100, 1), random_state=random)
    found = [kernel_distance(*pair) for pair in zip(x, y, strict=True)]
    values = np.array([interval.value for interval in found])
    assert values.mean() == pytest.approx(truth, abs=4 * values.std() / math.sqrt(120))
    assert np.mean([interval.covers(truth) for interval in found]) >= (0.84 if family is stats.uniform else 0.78)


def test_kernel_distance_refuses() -> None:
    rows = np.zeros((5, 2))
    with pytest.raises(EmptySet):
        kernel_distance(rows[:2], rows)
    with pytest.raises(InvalidInput, match="columns"):
        kernel_distance(rows, np.zeros((5, 3)))
    with pytest.raises(InvalidInput, match="block"):
        kernel_distance(rows, rows, block=0)
