from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal

from vestige.errors import NeedsAccess, Unsupported
from vestige.models.access import Access
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.generator import SampleBank
from vestige.models.oracle import gaussian_denoiser
from vestige.models.sampler import DDIM
from vestige.models.schedule import RectifiedFlow, VarianceExploding, VariancePreserving
from vestige.models.subject import Subject

TARGETS = {
    Prediction.NOISE: lambda x, e, a, s: e,
    Prediction.CLEAN: lambda x, e, a, s: x,
    Prediction.VELOCITY: lambda x, e, a, s: a * e - s * x,
    Prediction.FLOW: lambda x, e, a, s: e - x,
    Prediction.SCORE: lambda x, e, a, s: -e / s,
}
"""What each network is trained to output, from the definitions."""


@given(
    st.sampled_from(Prediction),
    st.floats(1e-3, 1),
    st.floats(1e-3, 80),
    st.lists(st.floats(-1, 1), min_size=1, max_size=4),
    st.floats(-5, 5),
)
def test_every_parametrization_gives_back_image_and_noise(prediction, alpha, sigma, pixels, eps):
    # Free alpha and sigma: the unit circle, straight lines and exploding variance are all among them.
    x0, a, s = (torch.tensor(v, dtype=torch.float64) for v in (pixels, alpha, sigma))
    noise = torch.linspace(-1, 1, len(x0), dtype=torch.float64) + eps
    x_t = a * x0 + s * noise
    p = TARGETS[prediction](x0, noise, a, s)
    # A quotient of level ratio r loses r of the sixteen digits.
    ratio = max(sigma / alpha, alpha / sigma)
    assert torch.allclose(prediction.mean(p, x_t, a, s), x0, rtol=0, atol=1e-13 * ratio)
    assert torch.allclose(prediction.noise(p, x_t, a, s), noise, rtol=0, atol=1e-13 * ratio)


def wrapped(oracle, prediction):
    def network(x_t, t):
        mean, noise = oracle.mean_and_noise(x_t, t)
        return TARGETS[prediction](mean, noise, *oracle.levels(t))

    return FunctionDenoiser(network, oracle.schedule, prediction, oracle.shape, identity=prediction.value)


@pytest.mark.parametrize("schedule", [VariancePreserving(), VarianceExploding(), RectifiedFlow()])
@pytest.mark.parametrize("prediction", Prediction)
def test_a_network_of_any_prediction_is_the_same_denoiser(gaussian, noises, schedule, prediction):
    oracle = gaussian_denoiser(*gaussian, schedule)
    network = wrapped(oracle, prediction)
    x_t, t = noises(3, oracle.shape)(0), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    for quantity in ("mean", "noise", "velocity", "score"):
        ours, theirs = getattr(network, quantity)(x_t, t), getattr(oracle, quantity)(x_t, t)
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9), quantity
    if prediction is Prediction.VELOCITY:
        assert torch.allclose(network.velocity(x_t, t), network.predict(x_t, t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", [VariancePreserving(), VarianceExploding(), RectifiedFlow()])
def test_score_is_the_gradient_of_the_log_density(gaussian, noises, schedule):
    oracle = gaussian_denoiser(*gaussian, schedule)
    mean, covariance = gaussian[0].flatten(), gaussian[1]
    for t in (0.05, 0.5, 0.95):
        time = torch.full((2,), t, dtype=torch.float64)
        alpha, sigma = (v.flatten()[0] for v in oracle.levels(time))
        x_t = (alpha * 0.1 * noises(2, oracle.shape)(0) + sigma * noises(2, oracle.shape)(1)).requires_grad_()
        density = MultivariateNormal(alpha * mean, alpha**2 * covariance + sigma**2 * torch.eye(4, dtype=torch.float64))
        (slope,) = torch.autograd.grad(density.log_prob(x_t.flatten(1)).sum(), x_t)
        assert torch.allclose(oracle.score(x_t.detach(), time), slope, rtol=1e-9, atol=1e-9)


def test_noised_images_and_evaluations(gaussian, noises):
    oracle = gaussian_denoiser(*gaussian)
    x, t = noises(3, oracle.shape)(0), torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    alpha, sigma = oracle.schedule.alpha_sigma(t)
    noise = noises(3, oracle.shape)(1)
    for row in range(3):
        assert torch.allclose(oracle.noised(x, noise, t)[row], alpha[row] * x[row] + sigma[row] * noise[row])
    t = t.clamp_min(0.1)
    for call in (oracle.mean, oracle.noise, oracle.velocity, oracle.score, oracle.mean_and_noise, oracle.predict):
        before = oracle.evaluations
        call(x, t)
        assert oracle.evaluations - before == 3


def test_what_is_no_network_says_so(gaussian):
    oracle = gaussian_denoiser(*gaussian)
    with pytest.raises(Unsupported, match="no weights to change"):
        _ = oracle.module
    with pytest.raises(Unsupported, match="no weights to replace"):
        oracle.with_module(torch.nn.Identity())


def test_a_subject_grants_what_its_denoiser_grants(gaussian):
    oracle = gaussian_denoiser(*gaussian)
    inside = Subject.of_denoiser("oracle", oracle, DDIM(2))
    outside = Subject.of_samples("bank", SampleBank(np.zeros((2, 1, 2, 2), np.uint8)))
    assert (inside.access, outside.access) == (Access.SCORES, Access.SAMPLES)
    assert inside.opened("this") is oracle
    assert inside.shape == outside.shape == (1, 2, 2)
    inside.generator.sample(np.arange(3), 0)
    assert (inside.evaluations, outside.evaluations) == (6, 0)
    assert inside.digest != outside.digest
    with pytest.raises(NeedsAccess, match=r"Measuring needs more than samples, and bank grants only samples"):
        outside.opened("Measuring")
