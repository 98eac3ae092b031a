"""ESS: skewness of known directions, its inversion, its jackknife, scikit-dimension beside it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.special import gammaln

from vestige.audit.geometry.ess import ESS, dimension_of, expected, skewness
from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.manifolds import gaussian, sphere

WORK = Work()


@pytest.mark.parametrize("n", [1, 2, 3, 8, 50])
def test_expected_skewness_is_the_mean_sine(n):
    normal = np.random.default_rng(0).standard_normal((2, 40000, n))
    cosine = (normal[0] * normal[1]).sum(1) / np.linalg.norm(normal, axis=2).prod(0)
    sine = np.sqrt(np.maximum(1 - cosine**2, 0))
    assert abs(sine.mean() - expected(60)[n - 1]) < 4 * sine.std() / 200 + 1e-7


def test_expected_skewness_of_two_and_three_dimensions():
    np.testing.assert_allclose(expected(3), [0, 2 / math.pi, math.pi / 4], atol=1e-15)


def test_expected_skewness_is_the_quotient_of_gamma_functions():
    half = np.arange(2, 400) / 2
    np.testing.assert_allclose(
        expected(399)[1:], np.exp(2 * gammaln(half) - gammaln(half + 0.5) - gammaln(half - 0.5)), rtol=1e-11
    )
    assert (np.diff(expected(1 << 16)) > 0).all()


def test_inversion():
    numbers = np.array([1, 2, 3, 7, 40, 900])
    np.testing.assert_allclose(dimension_of(expected(1000)[numbers - 1])[0], numbers, rtol=1e-6)
    between = (expected(4)[2:3] * 3 + expected(4)[3:]) / 4
    np.testing.assert_allclose(dimension_of(between)[0], 3.25, rtol=1e-12)
    assert dimension_of(np.array([0.0]))[0][0] == 1
    assert np.isfinite(dimension_of(np.array([1.0, 0.5]))[0]).all()


def _by_pairs(points):
    """Sum of areas over sum of products of lengths, one pair at a time, and its variance were pairs independent."""
    pairs = list(itertools.combinations(points, 2))
    area = np.array([math.sqrt(np.linalg.det(np.array([[v @ v, v @ w], [v @ w, w @ w]]))) for v, w in pairs])
    weight = np.array([math.sqrt((v @ v) * (w @ w)) for v, w in pairs])
    whole = area.sum() / weight.sum()
    return whole, np.square(area - whole * weight).sum() / weight.sum() ** 2


def test_skewness_and_its_error_one_pair_at_a_time():
    near = np.random.default_rng(1).standard_normal((1, 9, 4)) + 3
    value, error = skewness(near)
    centred = near[0] - near[0].mean(0)
    assert value[0] == pytest.approx(_by_pairs(centred)[0])
    without = np.array([_by_pairs(np.delete(centred, i, 0))[0] for i in range(9)])
    jackknife = 8 / 9 * np.square(without - without.mean()).sum()
    pairs = _by_pairs(centred)[1]
    assert error[0] == pytest.approx(math.sqrt(max(jackknife - pairs, pairs)))


@pytest.mark.parametrize("scale", [[1, 1, 1, 1, 1], [1, 1, 1, 0.3, 0.2]])
def test_the_error_is_the_spread(scale):
    """For uniform directions, where pairs rule, and for others, where single neighbours do."""
    near = np.random.default_rng(2).standard_normal((800, 60, 5)) * scale
    value, error = skewness(near)
    # the spread of 800 values is known to 2.5 %; that the larger of two estimates is taken makes it wide by 15 %
    assert 0.9 < np.sqrt(np.mean(error**2)) / np.std(value) < 1.25


def test_it_is_what_scikit_dimension_says():
    skdim = pytest.importorskip("skdim")
    for points in (
        sphere(60, 3, 6, np.random.default_rng(3)).points,
        gaussian(60, 9, 30, np.random.default_rng(4)).points,
    ):
        theirs = skdim.id.ESS().fit_transform_pw(points, n_neighbors=20)
        ours = ESS((20,)).curve(points, points, same_index=True, work=WORK)
        np.testing.assert_allclose(ours.dimension[:, 0], theirs, rtol=1e-6)


def test_a_straight_line_has_dimension_one():
    points = np.linspace(0, 1, 200)[:, None] * np.array([[1.0, 2.0, 3.0]])
    curve = ESS((10, 30)).curve(points[50:60], np.delete(points, range(50, 60), 0), work=WORK)
    # areas of parallel vectors cancel to sqrt(2**-52) of the lengths, times a slope of pi / 2
    np.testing.assert_allclose(curve.dimension, 1, atol=1e-6)
