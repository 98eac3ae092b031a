from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vestige.audit.geometry import jacobian as module
from vestige.audit.geometry.estimator import Work
from vestige.audit.geometry.jacobian import WAYS, Differentiator, one_by_one, signs, together
from vestige.audit.geometry.levels import Batch
from vestige.errors import Unsupported
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.guidance import Guided
from vestige.models.oracle import gaussian_denoiser
from vestige.models.schedule import VarianceExploding

D, RATIO = 6, 0.3
SHAPE = (1, 2, 3)
SCHEDULE = VarianceExploding(1e-3, 10.0)
TIME = SCHEDULE.time_of_ratio(RATIO)


@pytest.fixture
def covariance(closed_forms):
    return closed_forms.spectrum(D, 3)[1]


@pytest.fixture
def model(covariance):
    return gaussian_denoiser(torch.zeros(SHAPE), covariance, SCHEDULE)


@pytest.fixture
def batch():
    rng = np.random.default_rng(1)
    return Batch(torch.from_numpy(rng.standard_normal((4, *SHAPE))), (3, 1, 4, 5), None)


@pytest.fixture
def tangents():
    return torch.from_numpy(np.random.default_rng(2).standard_normal((7, 4, *SHAPE)))


def matrix(covariance):
    return covariance @ torch.linalg.inv(covariance + RATIO**2 * torch.eye(D, dtype=torch.float64))


@pytest.mark.parametrize("way", WAYS)
def test_products_are_those_of_the_matrix(model, batch, tangents, covariance, way):
    found = Differentiator(model, Work(), [way]).at(batch, TIME)
    expected = tangents.flatten(2) @ matrix(covariance)
    torch.testing.assert_close(found.times(tangents).flatten(2), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.mean.flatten(1), batch.points.flatten(1) @ matrix(covariance), rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.trace(), np.trace(matrix(covariance)), atol=1e-9)
    quadratic = (tangents.flatten(2) * expected).sum(2).T
    np.testing.assert_allclose(found.quadratic(tangents), quadratic, atol=1e-9)


def test_a_small_budget_gives_the_same_in_smaller_parts(model, batch, tangents, monkeypatch):
    wide = Differentiator(model, Work())
    whole = wide.at(batch, TIME).times(tangents)
    narrow = Differentiator(model, Work(budget=1))
    assert (wide.size(), narrow.size()) == (1, 1) or wide.size() > 1
    parts = []
    inside = module.Jacobian._multiplied
    monkeypatch.setattr(module.Jacobian, "_multiplied", lambda self, v: parts.append(len(v)) or inside(self, v))
    torch.testing.assert_close(narrow.at(batch, TIME).times(tangents), whole, rtol=0, atol=1e-12)
    assert parts == [1] * 7
    assert narrow.size() == 1
    assert wide.size() == Work().batch_size


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("budget", [1, 1 << 30])
def test_a_point_and_each_product_count_as_one(model, batch, tangents, way, budget):
    found = Differentiator(model, Work(budget=budget), [way]).at(batch, TIME)
    assert model.evaluations == 4
    found.times(tangents)
    assert model.evaluations == 4 * (1 + 7)
    found.trace()
    assert model.evaluations == 4 * (1 + 7 + D)


def conditional(covariance):
    """Two Gaussians and their mixture's stand-in, told apart by a label; label 2 is no condition."""
    parts = torch.stack([covariance, 2 * covariance, torch.eye(D, dtype=torch.float64)])

    def mean(x_t, t, condition):
        variance = SCHEDULE.alpha_sigma(t.double())[1].square()[:, None, None]
        chosen = parts[condition]
        kept = chosen @ torch.linalg.inv(chosen + variance * torch.eye(D, dtype=torch.float64))
        return torch.einsum("nij,nj->ni", kept, x_t.flatten(1)).view_as(x_t)

    return FunctionDenoiser(
        mean, SCHEDULE, Prediction.CLEAN, SHAPE, identity="conditional", classes=2, null_condition=2
    )


def test_a_guided_model_has_the_complete_trace_and_counts_both(covariance, batch):
    inner, scale = conditional(covariance), 3.0
    labels = torch.tensor([0, 1, 0, 1])
    guided = Guided(inner, scale)
    found = Differentiator(guided, Work()).at(Batch(batch.points, batch.rows, labels), TIME)
    null = np.trace(torch.eye(D).numpy()) / (1 + RATIO**2)
    given = np.array([np.trace(matrix(c * covariance)) for c in (1.0, 2.0, 1.0, 2.0)])
    np.testing.assert_allclose(found.trace(), null + scale * (given - null), atol=1e-9)
    assert guided.evaluations == inner.evaluations == 2 * 4 * (1 + D)


class Attention(nn.Module):
    """One head over the pixels, by the fused kernel."""

    def __init__(self):
        super().__init__()
        self.lift = nn.Linear(1, 12, dtype=torch.float64)
        self.drop = nn.Linear(4, 1, dtype=torch.float64)

    def forward(self, x, t):
        q, k, v = self.lift(x.flatten(1)[..., None])[:, None].chunk(3, -1)
        return self.drop(nn.functional.scaled_dot_product_attention(q, k, v))[:, 0, :, 0].view_as(x)


class OnlyBackwards(torch.autograd.Function):
    """Cubes, with neither a forward mode nor a rule for batches of tangents."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):
        return 3 * ctx.saved_tensors[0] ** 2 * grad


class Branching(nn.Module):
    """Goes another way when the pixels say so."""

    def forward(self, x, t):
        return x**2 if float(x.detach().sum()) > 1e9 else x**3


NETWORKS = {
    "attention": Attention,
    "only backwards": lambda: lambda x, t: OnlyBackwards.apply(x),
    "branching": Branching,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_one_way_fails_on_are_answered_in_another(name, batch):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = NETWORKS[name]()
    model = FunctionDenoiser(network, SCHEDULE, Prediction.CLEAN, SHAPE, identity=name)
    backends = torch.backends.cuda
    before = (backends.flash_sdp_enabled(), backends.mem_efficient_sdp_enabled(), backends.math_sdp_enabled())
    found = Differentiator(model, Work()).at(batch, TIME).trace()
    after = (backends.flash_sdp_enabled(), backends.mem_efficient_sdp_enabled(), backends.math_sdp_enabled())
    assert after == before
    for row, point in enumerate(batch.points):
        dense = torch.autograd.functional.jacobian(
            lambda y: model.mean(y[None], batch.times(TIME)[:1])[0], point, vectorize=False
        )
        assert found[row] == pytest.approx(float(dense.view(D, D).trace()), abs=1e-9)


def test_both_ways_see_the_same_trace_of_an_unsymmetric_network(batch):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(D, 9), nn.Tanh(), nn.Linear(9, D), nn.Unflatten(1, SHAPE))
    network = network.double()
    model = FunctionDenoiser(lambda x, t: network(x), SCHEDULE, Prediction.NOISE, SHAPE, identity="unsymmetric")
    probes = signs(0, batch.rows, SHAPE, 5).double()
    first, other = (Differentiator(model, Work(), [way]).at(batch, TIME) for way in (together, one_by_one))
    np.testing.assert_allclose(other.quadratic(probes), first.quadratic(probes), atol=1e-10)
    np.testing.assert_allclose(other.trace(), first.trace(), atol=1e-10)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_network_without_derivative_is_refused_and_not_taken_for_flat(batch, mode):
    def network(x, t):
        with mode():
            return 2 * x

    model = FunctionDenoiser(network, SCHEDULE, Prediction.NOISE, SHAPE, identity="cut off")
    with pytest.raises(Unsupported, match="no derivative"):
        Differentiator(model, Work()).at(batch, TIME)


def test_a_fault_of_the_network_itself_is_not_hidden(batch):
    def broken(x, t):
        raise ValueError("no such layer")

    model = FunctionDenoiser(broken, SCHEDULE, Prediction.CLEAN, SHAPE, identity="broken")
    with pytest.raises(ValueError, match="no such layer"):
        Differentiator(model, Work()).at(batch, TIME)

    def mismatched(x, t):
        return x.flatten(1) @ torch.zeros(D + 1, D, dtype=x.dtype)

    model = FunctionDenoiser(mismatched, SCHEDULE, Prediction.CLEAN, SHAPE, identity="mismatched")
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        Differentiator(model, Work()).at(batch, TIME)


def test_probes_are_signs_that_belong_to_row_and_draw():
    probes = signs(7, (10, 11, 12), (1, 20, 20), 4)
    assert set(probes.unique().tolist()) == {-1.0, 1.0}
    assert torch.equal(signs(7, (12, 10), (1, 20, 20), 2), probes[:2, [2, 0]])
    assert not torch.equal(signs(8, (10,), (1, 20, 20), 1)[0], probes[0, :1])
    # Products of independent signs average to 0: 12 probes of 400 signs, so |mean| < 4.5 / 20 in all pairs.
    flat = probes.reshape(12, 400)
    assert float((flat @ flat.T / 400 - torch.eye(12)).abs().max()) < 4.5 / 20
