"""The dimension of a perfect memorizer: that of the library's own, closed forms of dense references, atoms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.audit.geometry.empirical_diffusion import EmpiricalDiffusion
from vestige.audit.geometry.estimate import Reading
from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.manifolds import gaussian
from vestige.errors import InvalidInput
from vestige.models.oracle import EmpiricalDenoiser
from vestige.models.schedule import VariancePreserving

WORK = Work()
RATIOS = (0.05, 0.1, 0.2)


def _exact(denoiser, point, ratio):
    """FLIPD by the whole Jacobian of the clean mean at a clean point."""
    t = torch.tensor([denoiser.schedule.time_of_ratio(ratio)], dtype=torch.float64)
    alpha, sigma = (float(v) for v in denoiser.schedule.alpha_sigma(t))

    def mean(y):
        return denoiser.mean((alpha * y).view(1, *denoiser.shape), t).flatten()

    y = torch.from_numpy(point)
    jacobian = torch.autograd.functional.jacobian(mean, y)
    return float(jacobian.trace() + (y - mean(y)).square().sum() * (alpha / sigma) ** 2), sigma / alpha


@pytest.mark.parametrize("ratio", [0.05, 0.2, 1.0])
def test_it_is_flipd_of_the_perfect_memorizer(ratio):
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.3, 0.3, (12, 4))
    points[4] = points[3]
    queries = np.concatenate((points[:5], rng.uniform(-0.3, 0.3, (4, 4))))
    train = torch.from_numpy(points).view(-1, 1, 2, 2)
    estimator = EmpiricalDiffusion((_exact(EmpiricalDenoiser(train, VariancePreserving()), points[0], ratio)[1],))
    curve = estimator.curve(queries, points, work=WORK)
    left_out = estimator.curve(points, points, same_index=True, work=WORK)
    whole = EmpiricalDenoiser(train, VariancePreserving())
    expected = np.array([_exact(whole, query, ratio)[0] for query in queries])
    np.testing.assert_allclose(curve.dimension[:, 0], np.clip(expected, 0, 4), rtol=1e-6, atol=1e-9)
    for i in range(12):
        others = EmpiricalDenoiser(train[np.arange(12) != i], VariancePreserving())
        value = _exact(others, points[i], ratio)[0]
        np.testing.assert_allclose(left_out.dimension[i, 0], np.clip(value, 0, 4), rtol=1e-6, atol=1e-9)


def test_a_circle():
    angle = 2 * np.pi * np.arange(4000) / 4000
    circle = np.stack((np.cos(angle), np.sin(angle)), 1)
    curve = EmpiricalDiffusion(RATIOS).curve(circle[:3], circle, work=WORK)
    # 2 k (1 - I_1(k) / I_0(k)), k = 1 / ratio^2, to the digits given
    np.testing.assert_allclose(curve.dimension, np.tile([1.0006, 1.0025, 1.0104], (3, 1)), atol=6e-5)


def test_a_segment_and_its_edge():
    segment = np.stack(((np.arange(20000) + 0.5) / 20000, np.zeros(20000)), 1)
    queries = np.array([[0.5, 0.0], [0.0, 0.0], [0.1, 0.0]])
    curve = EmpiricalDiffusion((0.01, 0.05, 0.1)).curve(queries, segment, work=WORK)
    expected = [[1, 1, 1], [1, 1, 1], [1, 0.8895, 0.7124]]
    np.testing.assert_allclose(curve.dimension, expected, atol=2e-4)


def test_a_disc_and_its_edge():
    grid = (np.arange(-150, 150) + 0.5) / 150
    disc = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    disc = disc[(disc**2).sum(1) <= 1]
    curve = EmpiricalDiffusion((0.05, 0.1)).curve(np.array([[0.0, 0.0], [0.9, 0.0]]), disc, work=WORK)
    # the rim of a grid of squares of side 1/150 is ragged, which counts near the rim
    np.testing.assert_allclose(curve.dimension, [[2, 2], [1.882, 1.676]], atol=0.01)


def test_copies_weigh():
    """A von Mises circle of weight 0.8 and an atom at the origin of weight 0.2."""
    fine = np.linspace(-np.pi, np.pi, 100001)
    mass = np.cumsum(np.exp(2 * np.cos(fine)))
    angle = np.interp((np.arange(4000) + 0.5) / 4000, mass / mass[-1], fine)
    points = np.concatenate((np.stack((np.cos(angle), np.sin(angle)), 1), np.zeros((1000, 2))))
    queries = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    curve = EmpiricalDiffusion((0.05, 0.1, 0.5)).curve(queries, points, work=WORK)
    expected = [[0.9956, 0.983, 0.896], [1.0057, 1.023, np.nan], [0, 0, 1.405]]
    known = np.isfinite(expected)
    np.testing.assert_allclose(curve.dimension[known], np.array(expected)[known], atol=2e-3)
    assert curve.dimension[1, 2] == 2  # 3.444 in two dimensions


@pytest.mark.parametrize(("d", "ambient"), [(1, 3), (3, 3), (2, 10)])
def test_a_gaussian_shows_its_dimension_on_the_plateau(d, ambient):
    points = gaussian(1500, d, ambient, np.random.default_rng(d)).points
    length = np.linalg.norm(points, axis=1)
    inner = np.flatnonzero(length < np.median(length))[:60]
    whole = EmpiricalDiffusion().curve(points, points, same_index=True, work=WORK)
    read = EmpiricalDiffusion().read(whole)
    value, error = read.value[inner], read.error[inner]
    assert sum(read.reading[i] is Reading.PLATEAU for i in inner) >= 57
    assert np.nanmean(np.abs(value - d) < 2 * error + 0.05 * d) > 0.9
    # density falls to half within a standard deviation, so a stretch that reaches so far is read too low
    assert abs(np.nanmean(value) - d) < 0.15 * d


def test_the_error_is_the_spread_over_samples():
    """Of 300 clouds far from each other, seen from their centres."""
    clouds = np.random.default_rng(5).standard_normal((300, 200, 2))
    centres = 100.0 * np.stack(np.unravel_index(np.arange(300), (18, 18)), 1)
    points = np.concatenate(((clouds + centres[:, None]).reshape(-1, 2).T, np.zeros((3, 60000)))).T
    queries = np.concatenate((centres.T, np.zeros((3, 300)))).T
    curve = EmpiricalDiffusion((0.4,)).curve(queries, points, work=WORK)
    # a standard deviation of 300 values is known to 4 %; the jackknife is of first order in some 60 rows
    assert np.std(curve.dimension) == pytest.approx(np.sqrt(np.mean(curve.error**2)), rel=0.15)


def test_a_memorizer_has_dimension_zero_at_what_it_memorized_and_none_nearby():
    points = np.random.default_rng(6).standard_normal((50, 8))
    own = EmpiricalDiffusion().estimate(points, points, work=WORK)
    assert (own.value == 0).all()
    assert set(own.reading) == {Reading.ATOM}
    left_out = EmpiricalDiffusion((0.01, 0.02)).estimate(points, points, same_index=True, work=WORK)
    assert set(left_out.reading) == {Reading.NONE}
    np.testing.assert_array_equal(left_out.curve.dimension, 8)  # clamped
    assert np.isnan(left_out.curve.error).all()


def test_a_near_copy_is_no_atom():
    points = np.random.default_rng(7).standard_normal((50, 8))
    read = EmpiricalDiffusion((0.01, 0.02)).estimate(points[:5] + 1e-9, points, work=WORK)
    assert Reading.ATOM not in read.reading


def test_pixels_are_those_of_minus_one_to_one():
    images = np.random.default_rng(8).integers(0, 40, (200, 12), dtype=np.uint8)
    ratios = (0.05, 0.1, 0.3)
    as_bytes = EmpiricalDiffusion(ratios).curve(images, images, same_index=True, work=WORK)
    as_floats = images / 127.5 - 1
    wide = EmpiricalDiffusion(ratios).curve(as_floats, as_floats, same_index=True, work=WORK)
    np.testing.assert_allclose(as_bytes.dimension, wide.dimension, rtol=1e-9)
    assert as_bytes.ambient == 12


def test_a_single_row_left_out_leaves_nothing():
    read = EmpiricalDiffusion().estimate(np.ones((1, 3)), np.ones((1, 3)), same_index=True, work=WORK)
    assert read.reading == (Reading.NONE,)


def test_levels_that_are_not_positive_are_refused():
    with pytest.raises(InvalidInput):
        EmpiricalDiffusion((0.0, 0.1))
