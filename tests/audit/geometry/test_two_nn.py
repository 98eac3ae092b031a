"""TwoNN: ratios by brute force, both fits on exact exponentials, scikit-dimension beside it."""

from __future__ import annotations

import numpy as np
import pytest

from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.manifolds import gaussian, sphere
from vestige.audit.geometry.two_nn import Fit, TwoNN
from vestige.errors import InvalidInput

WORK = Work()


def _local(points, i, k, fitted):
    """The estimate at row i by brute force on the rows without it."""
    others = np.delete(points, i, 0)
    distance = np.linalg.norm(others[:, None] - others, axis=2)
    near = np.sort(distance, axis=1)[:, 1:3]
    hood = np.argsort(np.linalg.norm(others - points[i], axis=1))[:k]
    return fitted(np.log(near[hood, 1] / near[hood, 0]))


def _likelihood(ratios):
    return (len(ratios) - 1) / ratios.sum()


def _line(ratios):
    k = len(ratios)
    kept = int(k * 0.9)
    x, y = np.sort(ratios)[:kept], -np.log(1 - np.arange(1, kept + 1) / k)
    return np.linalg.lstsq(x[:, None], y, rcond=None)[0][0]


@pytest.mark.parametrize(
    ("estimator", "fitted"),
    [(TwoNN((12,), discard=0.0), _likelihood), (TwoNN((12,), fit=Fit.LINEAR), _line)],
)
def test_the_local_estimate_by_brute_force(estimator, fitted):
    points = gaussian(60, 2, 3, np.random.default_rng(0)).points
    curve = estimator.curve(points, points, same_index=True, work=WORK)
    expected = [_local(points, i, 12, fitted) for i in range(60)]
    np.testing.assert_allclose(curve.dimension[:, 0], expected, rtol=1e-9)


@pytest.mark.parametrize("fit", list(Fit))
@pytest.mark.parametrize("discard", [0.0, 0.1, 0.3])
def test_it_is_what_scikit_dimension_says(fit, discard):
    skdim = pytest.importorskip("skdim")
    if fit is Fit.LINEAR and not discard:
        pytest.skip("the line through the largest ratio is infinite there")
    for points in (
        sphere(300, 4, 7, np.random.default_rng(1)).points,
        gaussian(300, 9, 30, np.random.default_rng(2)).points,
    ):
        method = "linear" if fit is Fit.LINEAR else "mle"
        theirs = skdim.id.TwoNN(discard_fraction=discard, method=method).fit(points).dimension_
        value, error = TwoNN(discard=discard, fit=fit).overall(points, work=WORK)
        assert value == pytest.approx(theirs, rel=1e-7)
        assert 0 < error < value


@pytest.mark.parametrize("fit", list(Fit))
@pytest.mark.parametrize("discard", [0.0, 0.1, 0.4])
def test_the_standard_error_on_exact_exponentials(fit, discard):
    d, k, n = 5.0, 60, 4000
    ratios = np.random.default_rng(3).exponential(1 / d, (n, k))
    value, error = TwoNN(discard=discard, fit=fit)._fitted(ratios)
    # the standard deviation of 4000 values is known to about 2 %; the error is of first order in 1 / 36 or less
    assert np.std(value) == pytest.approx(error.mean(), rel=0.12)
    if fit is Fit.LIKELIHOOD:
        assert abs(value.mean() - d) < 4 * np.std(value) / np.sqrt(n)


def test_copies_are_collapsed():
    points = sphere(400, 3, 5, np.random.default_rng(4)).points
    once = TwoNN().overall(points, work=WORK)
    assert TwoNN().overall(np.concatenate((points, points[:90], points[:90])), work=WORK) == once
    assert abs(once[0] - 3) < 3 * once[1] + 0.1


def test_too_few_rows_have_no_dimension():
    assert np.isnan(TwoNN().overall(np.eye(4), work=WORK)).all()
    assert np.isnan(TwoNN((5,)).curve(np.zeros((1, 2)), np.eye(2), work=WORK).dimension).all()


def test_a_share_out_of_range_is_refused():
    for discard in (-0.1, 0.6, np.nan):
        with pytest.raises(InvalidInput):
            TwoNN(discard=discard)
