from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.audit.geometry.dsm import DSM, Form, dsm_dimension
from vestige.audit.geometry.estimator import Work
from vestige.errors import InvalidInput
from vestige.models.denoiser import Prediction
from vestige.models.oracle import EmpiricalDenoiser, gaussian_denoiser

D = 12
SHAPE = (1, 3, 4)
WORK = Work(seed=5)


@pytest.fixture(scope="module")
def covariance(closed_forms):
    return closed_forms.spectrum(D, 5)[1]


@pytest.fixture(scope="module")
def points(covariance):
    rng = np.random.default_rng(0)
    root = np.linalg.cholesky(covariance.numpy() + 1e-12 * np.eye(D))
    return torch.from_numpy((rng.standard_normal((3, D)) @ root.T).reshape(3, *SHAPE))


def expectation(covariance, y, ratio, form):
    """``tr M M' + |(M - 1) y|^2 / r^2`` and ``tr M`` for the mean ``M x`` of N(0, C)."""
    mean = covariance @ torch.linalg.inv(covariance + ratio**2 * torch.eye(D, dtype=torch.float64))
    if form is Form.STEIN:
        return float(mean.trace())
    off = y.flatten() @ (mean - torch.eye(D, dtype=torch.float64)).T
    return float((mean @ mean.T).trace() + off.square().sum() / ratio**2)


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("prediction", [Prediction.NOISE, Prediction.VELOCITY])
def test_the_mean_over_draws_is_the_expectation(closed_forms, covariance, points, form, prediction):
    oracle = gaussian_denoiser(torch.zeros(SHAPE, dtype=torch.float64), covariance, closed_forms.SCHEDULES["table"])
    network = closed_forms.as_network(oracle, prediction)
    many = points[:1].expand(150, *SHAPE)
    curve = DSM(ratios=(0.05, 0.4), draws=8, form=form).curve(network, many, range(150), work=WORK)
    for level, ratio in enumerate(curve.scale):
        off = curve.dimension[:, level] - expectation(covariance, points[0], ratio, form)
        assert abs(off.mean()) < 4 * off.std() / np.sqrt(150)
        # Squares of 150 near normal errors scatter by sqrt(2 / 150), 0.12 of their mean.
        assert np.mean(off**2) == pytest.approx(np.mean(curve.error[:, level] ** 2), rel=0.4)


@pytest.mark.parametrize("form", Form)
def test_atoms_have_dimension_zero(points, form):
    curve = DSM(ratios=(0.01, 0.05), form=form).curve(EmpiricalDenoiser(points), points, range(3), work=WORK)
    np.testing.assert_allclose(curve.dimension, 0, atol=1e-9)
    np.testing.assert_allclose(curve.error, 0, atol=1e-9)


def test_evaluations_are_the_draws(covariance, points):
    model = gaussian_denoiser(torch.zeros(SHAPE), covariance)
    for draws, size in ((8, 64), (5, 2), (1, 1)):
        before = model.evaluations
        curve = DSM(ratios=(0.1, 0.2), draws=draws).curve(model, points, range(3), work=Work(batch_size=size))
        assert curve.evaluations == model.evaluations - before == 3 * 2 * draws


def test_neither_batch_nor_company_matter(covariance, points):
    model = gaussian_denoiser(torch.zeros(SHAPE), covariance)
    method = DSM(ratios=(0.05, 0.2), draws=3)
    whole = method.curve(model, points, (7, 8, 9), work=WORK)
    for size in (1, 2, 5):
        found = method.curve(model, points, (7, 8, 9), work=Work(seed=5, batch_size=size))
        np.testing.assert_allclose(found.dimension, whole.dimension, rtol=1e-9)
    alone = method.curve(model, points[1:2], (8,), work=WORK)
    np.testing.assert_allclose(alone.dimension[0], whole.dimension[1], rtol=1e-9)
    assert np.isnan(DSM(ratios=(0.1,), draws=1).curve(model, points, range(3), work=WORK).error).all()


def test_no_graph_is_kept_and_settings_are_checked(points):
    layer = torch.nn.Linear(4, 4, dtype=torch.float64)
    seen = []

    def network(x, t):
        seen.append(layer(x).requires_grad)
        return layer(x)

    from vestige.models.adapters.function import FunctionDenoiser
    from vestige.models.schedule import VariancePreserving

    model = FunctionDenoiser(network, VariancePreserving(), Prediction.NOISE, SHAPE, identity="layer")
    DSM(ratios=(0.1,), draws=1).curve(model, points, range(3), work=WORK)
    assert seen == [False]
    with pytest.raises(InvalidInput, match="draws is 0"):
        DSM(draws=0)


def test_the_table_of_errors_is_averaged_over_times_and_draws():
    errors = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    np.testing.assert_allclose(dsm_dimension(errors), [2.5, 8.5])
