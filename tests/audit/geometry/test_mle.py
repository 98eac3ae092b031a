"""MLE: the formula by hand, its distribution, scikit-dimension beside it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from vestige.audit.geometry.estimate import Curve, Reading
from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.manifolds import ball, gaussian, sphere
from vestige.audit.geometry.mle import MLE, overall

WORK = Work()


def test_the_formula_by_hand():
    reference = np.array([[1.0], [-2.0], [4.0], [-8.0], [100.0]])
    curve = MLE((4, 5)).curve(np.zeros((1, 1)), reference, work=WORK)
    expected = 2 / (np.log(8) + np.log(4) + np.log(2)), 3 / np.log(1e8 / 64)
    np.testing.assert_allclose(curve.dimension, [expected])
    np.testing.assert_allclose(curve.error, [[expected[0], expected[1] / np.sqrt(2)]])
    assert curve.scale.tolist() == [4, 5]
    assert (curve.ambient, curve.evaluations) == (1, 0)


def test_mean_and_variance_are_exact_where_density_is_even():
    """At the centres of balls that lie far from each other."""
    d, k, n = 3, 12, 1500
    balls = ball(3 * k * n, d, d, np.random.default_rng(0)).points.reshape(n, 3 * k, d)
    centres = 10.0 * np.stack(np.unravel_index(np.arange(n), (12, 12, 12)), 1)
    found = MLE((k,)).curve(centres, (balls + centres[:, None]).reshape(-1, d), work=WORK).dimension[:, 0]
    spread = d / np.sqrt(k - 3)
    assert abs(np.mean(found) - d) < 4 * spread / np.sqrt(n)
    # the fourth moment of 1 / gamma is large for a shape of 11, so the variance is known to about a tenth
    assert abs(np.std(found) / spread - 1) < 0.15


def test_it_is_what_scikit_dimension_says():
    skdim = pytest.importorskip("skdim")
    for points in (
        sphere(300, 4, 7, np.random.default_rng(1)).points,
        gaussian(300, 9, 30, np.random.default_rng(2)).points,
    ):
        theirs = skdim.id.MLE(unbiased=True).fit(points, n_neighbors=20)
        ours = MLE((20,)).curve(points, points, same_index=True, work=WORK)
        np.testing.assert_allclose(ours.dimension[:, 0], theirs.dimension_pw_, rtol=1e-7)
        np.testing.assert_allclose(overall(ours)[0] / 19 * 18, theirs.dimension_, rtol=1e-7)


def test_one_dimension_of_all_points():
    points = sphere(2000, 3, 6, np.random.default_rng(3)).points
    points[:50] = points[50:100]
    curve = MLE((20,)).curve(points, points, same_index=True, work=WORK)
    value, error = overall(curve)
    assert (curve.dimension == 0).sum() == 100
    assert error[0] == pytest.approx(value[0] / np.sqrt(1900 * 19))
    # neighbourhoods overlap about 20 times, so the error is too small by up to sqrt(20)
    assert abs(value[0] - 3) < 3 * np.sqrt(20) * error[0]


def test_no_points_have_no_dimension():
    nothing = Curve(np.array([10.0]), np.array([[0.0], [np.nan]]), np.array([[0.0], [np.nan]]), 3)
    assert np.isnan(overall(nothing)[0]).all()


def test_neighbours_all_equally_far_have_no_answer():
    corners = np.array([[1.0, 0], [0, 1.0], [-1.0, 0], [0, -1.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = MLE((4,)).estimate(np.zeros((1, 2)), corners, work=WORK)
    assert read.reading == (Reading.NONE,)
    assert np.isnan(read.value[0])


def test_images_as_bytes_are_the_same_as_numbers():
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (200, 48), dtype=np.uint8)
    whole = MLE((10, 20)).curve(images, images, same_index=True, work=WORK)
    wide = MLE((10, 20)).curve(images.astype(float), images.astype(float), same_index=True, work=WORK)
    np.testing.assert_allclose(whole.dimension, wide.dimension, rtol=1e-10)
