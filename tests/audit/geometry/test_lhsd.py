from __future__ import annotations

import numpy as np
import pytest
import torch

from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.jacobian import Differentiator
from vestige.audit.geometry.levels import Batch
from vestige.audit.geometry.lhsd import LHSD, quadrature
from vestige.errors import InvalidInput
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.oracle import EmpiricalDenoiser, gaussian_denoiser
from vestige.models.schedule import VarianceExploding

D = 12
SHAPE = (1, 3, 4)
WORK = Work(seed=2)
SCHEDULE = VarianceExploding(1e-3, 10.0)


@pytest.fixture(scope="module")
def known(closed_forms):
    variances, covariance = closed_forms.spectrum(D, 5)
    return variances.numpy(), gaussian_denoiser(torch.zeros(SHAPE, dtype=torch.float64), covariance, SCHEDULE)


def test_the_mean_over_probes_is_the_trace_of_f(known):
    variances, model = known
    method, zero = LHSD(ratios=(0.05, 0.7), probes=4), torch.zeros(1, *SHAPE, dtype=torch.float64)
    many = zero.expand(200, *SHAPE)
    curve = method.curve(model, many, range(200), work=WORK)
    for level, ratio in enumerate(curve.scale):
        expected = method.flatness(ratio**2 / (variances + ratio**2)).sum()
        off = curve.dimension[:, level] - expected
        # Five nodes fix a polynomial of degree 9; six different eigenvalues leave a remainder below 0.01.
        assert abs(off.mean()) < 4 * off.std() / np.sqrt(200) + 0.01
        assert np.mean(off**2) == pytest.approx(np.mean(curve.error[:, level] ** 2), rel=0.4)


def test_it_looks_at_noised_points_unless_told_otherwise(known):
    _, model = known
    farthest = []

    def spy(x, t):
        farthest.append(float(x.detach().abs().max()))
        return model.mean(x, t)

    network = FunctionDenoiser(spy, SCHEDULE, Prediction.CLEAN, SHAPE, identity="spy")
    zero = torch.zeros(1, *SHAPE, dtype=torch.float64)
    for noised in (True, False):
        LHSD(ratios=(0.1, 0.2), probes=1, noised=noised).curve(network, zero, (4,), work=WORK)
    assert 0.05 < farthest[0] < 0.5
    assert farthest[1:] == [pytest.approx(2 * farthest[0]), 0, 0]


def test_enough_steps_make_the_quadrature_exact(known):
    _, model = known
    batch = Batch(torch.zeros(3, *SHAPE, dtype=torch.float64), (0, 1, 2), None)
    found = Differentiator(model, WORK).at(batch, SCHEDULE.time_of_ratio(0.5))
    start = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, *SHAPE)))
    nodes, weights = quadrature(found, start, 8)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-12)
    matrix = torch.eye(D, dtype=torch.float64) - torch.func.jacrev(
        lambda y: model.mean(y.view(1, *SHAPE), torch.tensor([SCHEDULE.time_of_ratio(0.5)])).flatten()
    )(torch.zeros(D, dtype=torch.float64))
    values, axes = torch.linalg.eigh((matrix + matrix.mT) / 2)
    unit = (start / start.flatten(2).norm(dim=2)[..., None, None, None]).flatten(2)
    exact = ((unit @ axes).square() * values.exp()).sum(-1)
    np.testing.assert_allclose((weights * np.exp(nodes)).sum(-1), exact, rtol=1e-6)


def test_atoms_have_dimension_zero_and_a_space_that_is_all_flat_its_own():
    train = torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (4, *SHAPE)))
    method = LHSD(ratios=(0.01, 0.03), probes=2)
    found = method.curve(EmpiricalDenoiser(train), train, range(4), work=WORK)
    np.testing.assert_allclose(found.dimension, 0, atol=1e-6)
    wide = gaussian_denoiser(torch.zeros(SHAPE, dtype=torch.float64), 1e6 * torch.eye(D, dtype=torch.float64))
    found = method.curve(wide, train, range(4), work=WORK)
    np.testing.assert_allclose(found.dimension, D, atol=1e-6)


def test_the_transition_counts_what_has_not_come_apart(known):
    variances, model = known
    zero = torch.zeros(1, *SHAPE, dtype=torch.float64)
    method = LHSD(ratios=(0.05, 1.0), probes=32, steps=8)
    found = method.transition(model, zero, (0,), work=WORK)
    values = 1 / (variances + 1)
    inside = int((np.abs(values - 0.5) < 0.2).sum())
    assert inside >= 2
    assert found.dimension[0, 0] == pytest.approx(0, abs=1e-9)
    assert abs(found.dimension[0, 1] - inside) < 4 * found.error[0, 1]


def test_an_unsymmetric_network_is_seen_through_its_symmetric_part():
    matrix = torch.from_numpy(np.random.default_rng(3).standard_normal((D, D))) / 4
    model = FunctionDenoiser(
        lambda x, t: (x.flatten(1) @ matrix.T).view_as(x), SCHEDULE, Prediction.CLEAN, SHAPE, identity="matrix"
    )
    batch = Batch(torch.zeros(1, *SHAPE, dtype=torch.float64), (0,), None)
    start = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 1, *SHAPE)))
    nodes, weights = quadrature(Differentiator(model, WORK).at(batch, 0.5), start, D)
    unit = (start / start.norm()).flatten()
    # A Krylov space that is the whole space: the first moments of the symmetric part are exact.
    symmetric = torch.eye(D, dtype=torch.float64) - (matrix + matrix.T) / 2
    assert (weights * nodes).sum() == pytest.approx(float(unit @ symmetric @ unit), rel=1e-9)
    assert (weights * nodes**2).sum() == pytest.approx(float((symmetric @ unit).square().sum()), rel=1e-9)


def test_evaluations_and_batches(known):
    _, model = known
    points = torch.from_numpy(np.random.default_rng(1).standard_normal((3, *SHAPE)))
    method = LHSD(ratios=(0.05, 0.2), probes=3, steps=4)
    before = model.evaluations
    whole = method.curve(model, points, (7, 8, 9), work=WORK)
    assert whole.evaluations == model.evaluations - before == 3 * 2 * (1 + 3 * 4)
    for work in (Work(seed=2, batch_size=1), Work(seed=2, budget=1)):
        np.testing.assert_allclose(method.curve(model, points, (7, 8, 9), work=work).dimension, whole.dimension)
    np.testing.assert_allclose(method.curve(model, points[1:2], (8,), work=WORK).dimension[0], whole.dimension[1])


@pytest.mark.parametrize("wrong", [{"probes": 0}, {"steps": 0}, {"centre": 0.0}, {"centre": 1.0}, {"power": 0.0}])
def test_settings_are_checked(wrong):
    with pytest.raises(InvalidInput, match="probes="):
        LHSD(**wrong)
