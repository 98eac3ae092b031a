from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from vestige.audit.geometry.estimate import Reading
from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.flipd import FLIPD
from vestige.audit.geometry.lidl import LIDL
from vestige.errors import InvalidInput, Unsupported
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.oracle import EmpiricalDenoiser, gaussian_denoiser

D = 12
SHAPE = (1, 3, 4)
WORK = Work(seed=3)


@pytest.fixture(scope="module")
def covariance(closed_forms):
    return closed_forms.spectrum(D, 5)[1]


@pytest.fixture(scope="module")
def points(covariance):
    rng = np.random.default_rng(0)
    root = np.linalg.cholesky(covariance.numpy() + 1e-12 * np.eye(D))
    return torch.from_numpy((rng.standard_normal((3, D)) @ root.T).reshape(3, *SHAPE))


@pytest.mark.parametrize("prediction", Prediction)
@pytest.mark.parametrize("schedule", ["vp", "cosine", "ve", "flow", "table"])
def test_every_parametrization_gives_the_closed_form_of_a_gaussian(
    closed_forms, covariance, points, prediction, schedule
):
    oracle = gaussian_denoiser(torch.zeros(SHAPE, dtype=torch.float64), covariance, closed_forms.SCHEDULES[schedule])
    network = closed_forms.as_network(oracle, prediction)
    curve = FLIPD(ratios=(0.02, 0.1, 0.5, 1.0)).curve(network, points, range(3), work=WORK)
    expected = closed_forms.gaussian_flipd(covariance, points.flatten(1), curve.scale)
    # float64, in which a residual |y - m| / r loses up to 1/r of the digits.
    np.testing.assert_allclose(curve.dimension, expected, rtol=0, atol=1e-8)
    assert (curve.error == 0).all()
    assert curve.ambient == D


def test_single_precision_keeps_four_digits(closed_forms, covariance, points):
    oracle = gaussian_denoiser(torch.zeros(SHAPE, dtype=torch.float64), covariance, closed_forms.SCHEDULES["vp"])
    network = closed_forms.as_network(oracle, Prediction.NOISE)
    curve = FLIPD(ratios=(0.02, 0.2)).curve(network, points.float(), range(3), work=WORK)
    expected = closed_forms.gaussian_flipd(covariance, points.flatten(1), curve.scale)
    np.testing.assert_allclose(curve.dimension, expected, rtol=1e-4)


def test_random_signs_are_unbiased_and_their_standard_error_is_right(closed_forms, covariance, points):
    oracle = gaussian_denoiser(torch.zeros(SHAPE, dtype=torch.float64), covariance, closed_forms.SCHEDULES["vp"])
    many = points[:1].expand(200, *SHAPE)
    curve = FLIPD(ratios=(0.1,), probes=8, exact=0).curve(oracle, many, range(200), work=WORK)
    expected = closed_forms.gaussian_flipd(covariance, points[:1].flatten(1), curve.scale)
    off = curve.dimension[:, 0] - expected[0, 0]
    assert abs(off.mean()) < 4 * off.std() / np.sqrt(200)
    # The mean squared error is what the standard errors say, within the 4 sd of 200 draws: sqrt(2 / 200) each.
    assert np.mean(off**2) == pytest.approx(np.mean(curve.error**2), rel=0.4)


def test_at_an_atom_one_probe_is_exact(points):
    memorizer = EmpiricalDenoiser(points)
    curve = FLIPD(ratios=(0.01, 0.03, 0.1), probes=1, exact=0).curve(memorizer, points, range(3), work=WORK)
    np.testing.assert_allclose(curve.dimension, 0, atol=1e-9)
    assert np.isnan(curve.error).all()


def test_at_a_noised_point_the_trace_alone_is_the_dimension(covariance, points):
    # A network that is right on noisy images and wrong on clean ones: |x - m| is small only without noise.
    model = gaussian_denoiser(torch.zeros(SHAPE, dtype=torch.float64), covariance)

    def network(x_t, t):
        mean, (alpha, sigma) = model.mean(x_t, t), model.levels(t)
        off = (x_t / alpha - mean).flatten(1).square().mean(1).sqrt().view(-1, 1, 1, 1)
        return mean - 100 * (x_t / alpha) * torch.sigmoid(40 * (0.3 - off * alpha / sigma))

    wrong = FunctionDenoiser(network, model.schedule, Prediction.CLEAN, SHAPE, identity="only noisy")
    ratios, dense = (0.05, 0.2), covariance.numpy()
    expected = np.array([np.trace(np.linalg.solve(dense + r**2 * np.eye(D), dense)) for r in ratios])
    found = FLIPD(ratios=ratios, noised=True).curve(wrong, points, (1, 2, 3), work=WORK)
    np.testing.assert_allclose(found.dimension, np.broadcast_to(expected, (3, 2)), atol=0.2)
    assert (np.abs(FLIPD(ratios=ratios).curve(wrong, points, (1, 2, 3), work=WORK).dimension) > 100).all()


@pytest.mark.parametrize(("probes", "exact", "products"), [(4, 0, 4), (1, 0, 1), (12, 0, D), (4, 64, D)])
def test_evaluations_are_one_and_the_probes(covariance, points, probes, exact, products):
    model = gaussian_denoiser(torch.zeros(SHAPE), covariance)
    levels = (0.05, 0.1, 0.2)
    curve = FLIPD(ratios=levels, probes=probes, exact=exact).curve(model, points, range(3), work=WORK)
    assert curve.evaluations == model.evaluations == 3 * len(levels) * (1 + products)


def test_neither_batch_nor_budget_nor_company_matter(covariance, points):
    model = gaussian_denoiser(torch.zeros(SHAPE), covariance)
    method = FLIPD(ratios=(0.05, 0.2), probes=3, exact=0)
    whole = method.curve(model, points, (7, 8, 9), work=WORK)
    for work in (Work(seed=3, batch_size=1), Work(seed=3, batch_size=2), Work(seed=3, budget=1)):
        found = method.curve(model, points, (7, 8, 9), work=work)
        np.testing.assert_allclose(found.dimension, whole.dimension, rtol=1e-9)
        np.testing.assert_allclose(found.error, whole.error, rtol=1e-6)
    alone = method.curve(model, points[1:2], (8,), work=WORK)
    np.testing.assert_allclose(alone.dimension[0], whole.dimension[1], rtol=1e-9)
    other = method.curve(model, points, (7, 8, 9), work=dataclasses.replace(WORK, seed=4))
    assert not np.allclose(other.dimension, whole.dimension)


def test_probes_are_shared_across_levels(covariance):
    # A Gaussian of equal variances: the trace estimate is the same multiple of its expectation at each level.
    axes = torch.linalg.eigh(covariance).eigenvectors[:, -5:]
    model = gaussian_denoiser(torch.zeros(SHAPE), axes @ axes.T)
    zero = torch.zeros(1, *SHAPE, dtype=torch.float64)
    curve = FLIPD(ratios=(0.05, 0.2, 0.5), probes=2, exact=0).curve(model, zero, (0,), work=WORK)
    shrink = 5 / (1 + curve.scale**2)
    np.testing.assert_allclose(curve.dimension[0] / shrink, curve.dimension[0, 0] / shrink[0], rtol=1e-9)
    assert abs(curve.dimension[0, 0] - shrink[0]) > 1e-3


def test_read_and_refused_settings(covariance, points):
    model = gaussian_denoiser(torch.zeros(SHAPE), covariance)
    found = FLIPD(ratios=(0.01, 0.02, 0.04, 0.08)).estimate(model, points, range(3), work=WORK)
    assert found.reading == (Reading.PLATEAU,) * 3
    np.testing.assert_allclose(found.value, 5, atol=0.1)
    assert FLIPD(ratios=(0.05,)).estimate(model, points, range(3), work=WORK).reading == (Reading.GIVEN,) * 3
    for wrong in ({"probes": 0}, {"exact": -1}, {"ratios": ()}, {"rule": Reading.ATOM}):
        with pytest.raises(InvalidInput):
            FLIPD(**wrong)


@pytest.mark.parametrize("kind", [FLIPD, LIDL])
def test_the_whole_jacobian_of_a_latent_is_refused_with_advice(kind):
    model = EmpiricalDenoiser(torch.zeros(1, 4, 64, 64))
    with pytest.raises(Unsupported, match=r"16,384 axes.*with a few probes"):
        kind(exact=1 << 20).curve(model, torch.zeros(1, 4, 64, 64), (0,), work=WORK)
    assert model.evaluations == 0
