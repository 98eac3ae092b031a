from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers import scheduling_ddpm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vestige.errors import InvalidInput
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.oracle import gaussian_denoiser
from vestige.models.sampler import DDIM, DDPM, Heun, Spacing
from vestige.models.schedule import (
    Cosine,
    DiscreteTable,
    RectifiedFlow,
    Schedule,
    VarianceExploding,
    VariancePreserving,
)

SHAPE = (1, 2, 2)
SAMPLERS = [DDIM, DDPM, Heun]
PREDICTIONS = {
    "epsilon": Prediction.NOISE,
    "v_prediction": Prediction.VELOCITY,
    "sample": Prediction.CLEAN,
}


def toy(x, step):
    """An arbitrary network: bent, mixing pixels, depending on the step."""
    return torch.tanh(1.3 * x.flip(-1) - 0.4 * x + 0.05 * step.double().view(-1, 1, 1, 1))


def spied(schedule: DiscreteTable, prediction: Prediction):
    """The toy network and the list of what it is shown."""
    seen = []

    def network(x_t, t):
        seen.append(x_t.clone())
        return toy(x_t, t - 1)

    denoiser = FunctionDenoiser(network, schedule, prediction, SHAPE, identity="toy", time_scale=schedule.steps)
    return denoiser, seen


def precise(scheduler):
    """The scheduler with its tables in float64."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.betas, scheduler.alphas = scheduler.betas.double(), scheduler.alphas.double()
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("spacing", Spacing)
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_ddim_equals_diffusers_step_for_step(noises, prediction_type, spacing, eta, clip):
    trained, steps, fresh = 50, 10, noises(3, SHAPE)
    scheduler = precise(
        DDIMScheduler(
            trained,
            beta_end=0.2,
            prediction_type=prediction_type,
            timestep_spacing=spacing.value,
            clip_sample=clip,
            set_alpha_to_one=True,
        )
    )
    scheduler.set_timesteps(steps)
    x, expected = fresh(0), []
    visited = [int(t) for t in scheduler.timesteps]
    for draw, (t, then) in enumerate(zip(visited, [*visited[1:], -1], strict=True), start=1):
        if spacing is Spacing.LINSPACE:
            # diffusers takes all gaps for equal, which those of linspace are not; this makes its division give them.
            scheduler.num_inference_steps = Fraction(trained, t - then)
        expected.append(x)
        answer = toy(x, torch.full((3,), float(t)))
        x = scheduler.step(answer, t, x, eta=eta, variance_noise=fresh(draw) if eta else None).prev_sample

    denoiser, seen = spied(DiscreteTable(scheduler.alphas_cumprod), PREDICTIONS[prediction_type])
    made = DDIM(steps, spacing, clip, eta).sample(denoiser, fresh(0), None, fresh)
    assert len(seen) == steps
    for ours, theirs in zip([*seen, made], [*expected, x.clamp(-1, 1)], strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize(("trained", "steps"), [(60, 60), (60, 12)])
@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_ddpm_equals_diffusers_step_for_step(noises, monkeypatch, prediction_type, trained, steps, clip):
    fresh, draws = noises(3, SHAPE), iter(range(1, steps + 1))
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda shape, **options: fresh(next(draws)))
    scheduler = precise(
        DDPMScheduler(
            trained,
            beta_end=0.2,
            prediction_type=prediction_type,
            variance_type="fixed_small",
            clip_sample=clip,
            timestep_spacing="leading",
        )
    )
    scheduler.set_timesteps(steps)
    x, expected = fresh(0), []
    for t in scheduler.timesteps:
        expected.append(x)
        x = scheduler.step(toy(x, torch.full((3,), float(t))), t, x).prev_sample

    denoiser, seen = spied(DiscreteTable(scheduler.alphas_cumprod), PREDICTIONS[prediction_type])
    made = DDPM(steps, Spacing.LEADING, clip).sample(denoiser, fresh(0), None, fresh)
    for ours, theirs in zip([*seen, made], [*expected, x.clamp(-1, 1)], strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-9)


@given(st.integers(1, 1000), st.floats(0, 1), st.sampled_from(Spacing))
def test_spacings_visit_the_steps_of_diffusers(trained, part, spacing):
    steps = max(1, round(part * trained))
    scheduler = DDIMScheduler(trained, timestep_spacing=spacing.value)
    scheduler.set_timesteps(steps)
    schedule = DiscreteTable(scheduler.alphas_cumprod)
    times = torch.tensor(spacing.times(schedule, steps), dtype=torch.float64)
    assert schedule.index(times).tolist() == [*scheduler.timesteps.tolist()[:steps], -1]
    assert (times.diff() < 0).all()


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [0, -1, 51])
def test_steps_out_of_range_are_refused(gaussian, noises, sampler, steps):
    schedule = DiscreteTable(DDPMScheduler(50).alphas_cumprod)
    with pytest.raises(InvalidInput, match=rf"^{steps} sampling steps.*1 to 50"):
        sampler(steps).sample(gaussian_denoiser(*gaussian, schedule), noises(1, SHAPE)(0), None, noises(1, SHAPE))
    if steps < 1:
        with pytest.raises(InvalidInput, match="at least 1"):
            sampler(steps).sample(gaussian_denoiser(*gaussian), noises(1, SHAPE)(0), None, noises(1, SHAPE))


def wrapped_flow(oracle):
    """The oracle's velocity ``E[eps - x_0 | x_t]`` as a flow network."""

    def network(x_t, t):
        mean, noise = oracle.mean_and_noise(x_t, t)
        return noise - mean

    return FunctionDenoiser(network, RectifiedFlow(), Prediction.FLOW, SHAPE, identity="flow")


def check_moments(made: torch.Tensor, mean: torch.Tensor, covariance: torch.Tensor) -> None:
    """Whitened by the true moments, n samples are standard normal: each statistic within its 1e-4 interval.

    The bounds are exact for the mean (normal) and the variances (chi-square), and normal
    to first order for correlations; Bonferroni over the d or d(d-1)/2 of each kind.
    """
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance), (made.flatten(1) - mean.flatten()).T, upper=False
    ).numpy()
    d, n = white.shape
    assert np.abs(white.mean(1)).max() < stats.norm.isf(1e-4 / (2 * d)) / np.sqrt(n)
    squares = np.square(white).sum(1)
    assert squares.min() > stats.chi2.ppf(1e-4 / (2 * d), n)
    assert squares.max() < stats.chi2.isf(1e-4 / (2 * d), n)
    products = (white @ white.T / n)[np.triu_indices(d, 1)]
    assert np.abs(products).max() < stats.norm.isf(1e-4 / (d * (d - 1))) / np.sqrt(n)


TABLE = DiscreteTable(DDPMScheduler(1000).alphas_cumprod)


@pytest.mark.parametrize(
    ("sampler", "schedule"),
    [
        (DDPM(160), TABLE),
        (DDIM(80, eta=1.0), RectifiedFlow()),
        (DDIM(80), VariancePreserving()),
        (DDIM(50), Cosine()),
        (Heun(40), VariancePreserving()),
        (Heun(25), VarianceExploding()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_samplers_reproduce_the_moments_of_a_gaussian(gaussian, noises, sampler, schedule):
    oracle = gaussian_denoiser(*gaussian, schedule)
    fresh = noises(300, SHAPE)
    check_moments(sampler.sample(oracle, fresh(0), None, fresh), *gaussian)


def test_the_moment_check_has_power(gaussian, noises):
    oracle, fresh = gaussian_denoiser(*gaussian), noises(300, SHAPE)
    with pytest.raises(AssertionError):  # ten steps are too few
        check_moments(DDIM(10).sample(oracle, fresh(0), None, fresh), *gaussian)


def test_rectified_flow_is_euler_integration_of_its_velocity(gaussian, noises):
    network, fresh = wrapped_flow(gaussian_denoiser(*gaussian, RectifiedFlow())), noises(300, SHAPE)
    made = DDIM(50, clip=False).sample(network, fresh(0), None, fresh)
    x = fresh(0)
    for i in range(50, 0, -1):
        x = x - network.predict(x, torch.full((300,), i / 50, dtype=torch.float64)) / 50
    assert torch.allclose(made, x, rtol=0, atol=1e-12)
    check_moments(made, *gaussian)
    check_moments(Heun(30).sample(network, fresh(0), None, fresh), *gaussian)


class Linear(Schedule):
    """Noise that grows linearly on untouched images: the ODE is smooth down to time 0."""

    def alpha_sigma(self, t):
        return torch.ones_like(t), 4 * t

    def key(self):
        return {"schedule": "linear"}


@pytest.mark.parametrize("schedule", [Linear(), RectifiedFlow()], ids=["linear", "flow"])
def test_heun_converges_with_order_two_and_ddim_with_order_one(noises, schedule):
    """Against the exact flow of a Gaussian: along each axis ``x_t`` keeps its number of standard deviations.

    The map holds for any start, so small ones keep wide Gaussians, which need few steps, within -1 and 1.
    """
    values = torch.tensor([0.5, 1.0, 1.5, 2.0], dtype=torch.float64)
    oracle = gaussian_denoiser(torch.zeros(SHAPE, dtype=torch.float64), values.diag(), schedule)
    alpha, sigma = (float(v) for v in schedule.alpha_sigma(torch.tensor(1.0, dtype=torch.float64)))
    start = noises(20, SHAPE)(0).clamp(-2, 2) / 8
    exact = start * max(sigma, 1) * (values / (alpha**2 * values + sigma**2)).sqrt().view(SHAPE)

    def error(sampler):
        made = sampler.sample(oracle, start, None, noises(20, SHAPE))
        return float((made - exact).square().mean().sqrt())

    heun = [error(Heun(steps, clip=False)) for steps in (24, 48)]
    ddim = [error(DDIM(steps, clip=False)) for steps in (24, 48)]
    assert heun[0] / heun[1] == pytest.approx(4, rel=0.2)
    assert ddim[0] / ddim[1] == pytest.approx(2, rel=0.2)
    assert heun[1] < 0.2 * ddim[1]


@pytest.mark.parametrize("sampler", [DDPM, Heun])
def test_clipping_bounds_every_clean_estimate(noises, sampler):
    """A network that claims brightness 3 then leads the same way as one that claims 1.

    Not so DDIM, which keeps the unclipped noise, as diffusers does.
    """
    fresh = noises(4, SHAPE)

    def path(value):
        seen = []

        def network(x_t, t):
            seen.append(x_t)
            return torch.full_like(x_t, value)

        denoiser = FunctionDenoiser(network, RectifiedFlow(), Prediction.CLEAN, SHAPE, identity="bright")
        made = sampler(6, clip=True).sample(denoiser, fresh(0), None, fresh)
        return torch.stack([*seen, made])

    assert torch.allclose(path(1.0), path(3.0), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("sampler", "each"), [(DDIM(7), 7), (DDPM(7), 7), (Heun(7), 13)])
def test_evaluations_are_as_announced_and_keys_tell_settings_apart(gaussian, noises, sampler, each):
    oracle = gaussian_denoiser(*gaussian)
    sampler.sample(oracle, noises(3, SHAPE)(0), None, noises(3, SHAPE))
    assert sampler.evaluations() == each
    assert oracle.evaluations == 3 * each
    kind = type(sampler)
    others = [kind(8), kind(7, Spacing.LEADING), kind(7, clip=False), DDIM(7, eta=0.5)]
    assert len({str(s.key()) for s in (sampler, *others)}) == 5
