from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import cumulative_trapezoid

from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.flipd import FLIPD
from vestige.audit.geometry.lidl import LIDL, slope_weights
from vestige.errors import InvalidInput, Unsupported
from vestige.models.oracle import EmpiricalDenoiser, gaussian_denoiser

D = 12
SHAPE = (1, 3, 4)
WORK = Work(seed=2)
FINE = tuple(np.geomspace(0.01, 0.1, 30).tolist())


@pytest.fixture(scope="module")
def covariance(closed_forms):
    return closed_forms.spectrum(D, 5)[1]


def log_density(covariance, y, ratios):
    """log N(y; 0, C + r^2) [levels]."""
    found = []
    for ratio in ratios:
        total = covariance + ratio**2 * torch.eye(D, dtype=torch.float64)
        found.append(float(-(torch.logdet(total) + y @ torch.linalg.solve(total, y)) / 2))
    return np.array(found)


def test_weights_are_the_slope_of_the_integral():
    rng = np.random.default_rng(0)
    x, derivative = np.sort(rng.uniform(-4, 0, 9)), rng.standard_normal(9)
    weights = slope_weights(x, 4)
    assert weights.shape == (6, 9)
    for first, row in enumerate(weights):
        part = slice(first, first + 4)
        integral = cumulative_trapezoid(derivative[part], x[part], initial=0)
        assert row @ derivative == pytest.approx(np.polyfit(x[part], integral, 1)[0])
    np.testing.assert_allclose(weights.sum(1), 1)


def test_a_fine_grid_gives_the_slope_of_the_log_density(covariance):
    y = torch.from_numpy(np.random.default_rng(1).standard_normal(D)) @ covariance
    model = gaussian_denoiser(torch.zeros(SHAPE, dtype=torch.float64), covariance)
    curve = LIDL(ratios=FINE, window=30).curve(model, y.view(1, *SHAPE), (0,), work=WORK)
    slope = np.polyfit(np.log(FINE), log_density(covariance, y, FINE), 1)[0]
    # The trapezoid's error with steps of 0.08 in log r and a derivative that bends by less than 1.
    assert curve.dimension[0, 0] == pytest.approx(D + slope, abs=1e-3)
    assert curve.scale[0] == pytest.approx(np.sqrt(0.001), rel=1e-6)
    assert curve.error[0, 0] == 0


def test_slopes_are_weighted_means_of_flipd_and_so_are_their_errors(covariance):
    model = gaussian_denoiser(torch.zeros(SHAPE, dtype=torch.float64), covariance)
    many = torch.zeros(100, *SHAPE, dtype=torch.float64)
    ratios = (0.05, 0.1, 0.2, 0.4)
    settings = {"ratios": ratios, "probes": 6, "exact": 0}
    flipd = FLIPD(**settings).curve(model, many, range(100), work=WORK)
    lidl = LIDL(**settings, window=3).curve(model, many, range(100), work=WORK)
    weights = slope_weights(np.log(ratios), 3)
    np.testing.assert_allclose(lidl.dimension, flipd.dimension @ weights.T, rtol=1e-9)
    assert lidl.evaluations == flipd.evaluations == 100 * 4 * 7
    spread = lidl.dimension.std(axis=0)
    np.testing.assert_allclose(np.sqrt(np.mean(lidl.error**2, axis=0)), spread, rtol=0.4)


def test_atoms_have_dimension_zero():
    train = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (4, *SHAPE)))
    curve = LIDL(ratios=(0.01, 0.02, 0.04), window=3).curve(EmpiricalDenoiser(train), train, range(4), work=WORK)
    np.testing.assert_allclose(curve.dimension, 0, atol=1e-9)


def test_a_slope_needs_two_levels(closed_forms, covariance):
    model = gaussian_denoiser(torch.zeros(SHAPE), covariance, closed_forms.SCHEDULES["table"])
    zero = torch.zeros(1, *SHAPE, dtype=torch.float64)
    with pytest.raises(Unsupported, match="one noise level"):
        LIDL(ratios=(0.05, 0.0501)).curve(model, zero, (0,), work=WORK)
    assert LIDL(ratios=(0.05, 0.1), window=5).curve(model, zero, (0,), work=WORK).dimension.shape == (1, 1)
    with pytest.raises(InvalidInput, match="window=1"):
        LIDL(window=1)
