from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vestige.errors import InvalidInput, Unsupported
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Denoiser, Prediction
from vestige.models.generator import DiffusionGenerator
from vestige.models.oracle import EmpiricalDenoiser, MixtureDenoiser, gaussian_denoiser
from vestige.models.sampler import DDPM
from vestige.models.schedule import VariancePreserving
from vestige.rare.diffusion.boost_and_skip import BoostAndSkip
from vestige.rare.diffusion.self_guided import SelfGuided

SHAPE = (1, 2, 2)


def gaussian(scale: float = 0.2) -> Denoiser:
    return gaussian_denoiser(torch.zeros(SHAPE).double(), scale**2 * torch.eye(4).double())


def lopsided() -> MixtureDenoiser:
    """Nine images in ten lie around -0.4, one around 0.5."""
    means = torch.stack([torch.full(SHAPE, -0.4), torch.full(SHAPE, 0.5)]).double()
    covariance = 0.05**2 * torch.eye(4).double().expand(2, 4, 4)
    return MixtureDenoiser(means, covariance, torch.tensor([0.9, 0.1]))


def drawn(sampler: object, denoiser: Denoiser, rows: int = 400) -> np.ndarray:
    pixels = DiffusionGenerator(denoiser, sampler, batch_size=200).sample(np.arange(rows), 0)  # type: ignore[arg-type]
    return pixels.reshape(rows, -1) / 127.5 - 1


def test_without_boost_and_skip_it_is_ancestral_sampling() -> None:
    np.testing.assert_array_equal(
        drawn(BoostAndSkip(steps=12, gamma=1.0, skip=0), gaussian(), 30), drawn(DDPM(steps=12), gaussian(), 30)
    )


def test_the_boosted_walk_of_a_gaussian_is_known() -> None:
    """All steps are linear, so the variance of the result follows from that of the start."""
    sampler, model = BoostAndSkip(steps=8, gamma=6.0, skip=5, clip=False), gaussian(0.1)
    times = sampler.times(model.schedule)
    assert len(times) == 4
    variance = 36.0
    for t, s in pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (
            model.schedule.alpha_sigma(torch.tensor([u]).double()) for u in (t, s)
        )
        ratio = float(alpha_t / alpha_s)
        gained = float(sigma_t) ** 2 - (ratio * float(sigma_s)) ** 2
        posterior = float(alpha_t) * 0.01 / (float(alpha_t) ** 2 * 0.01 + float(sigma_t) ** 2)
        factor = (ratio * float(sigma_s) ** 2 + float(alpha_s) * gained * posterior) / float(sigma_t) ** 2
        variance = factor**2 * variance + gained * float(sigma_s) ** 2 / float(sigma_t) ** 2
    found = drawn(sampler, model, 1500)
    assert found.std() == pytest.approx(variance**0.5, rel=0.05)
    assert found.std() > 1.1 * drawn(DDPM(steps=8, clip=False), model, 1500).std()


def test_boost_and_skip_brings_out_the_minority() -> None:
    model = lopsided()
    plain = (drawn(DDPM(steps=10), model).mean(1) > 0).mean()
    boosted = (drawn(BoostAndSkip(steps=10, gamma=4.0, skip=6), model).mean(1) > 0).mean()
    assert boosted > plain + 0.05
    assert BoostAndSkip(steps=10, skip=6).evaluations() == 4
    assert model.evaluations == 400 * (10 + 4)


def test_boost_and_skip_settings() -> None:
    assert BoostAndSkip().key()["gamma"] == 2.5
    for wrong in ({"gamma": 0.5}, {"skip": -1}, {"steps": 5, "skip": 5}):
        with pytest.raises(InvalidInput):
            BoostAndSkip(**wrong)


def lost(model: Denoiser, x: Tensor, t: Tensor, noise: Tensor, stop: Tensor) -> Tensor:
    """The guided loss with its second half held at ``stop``, by its formula."""
    mean = model.mean(x, t)
    again = torch.full_like(t, 0.4)
    rebuilt = model.mean(model.noised(stop, noise, again), again)
    return (mean - rebuilt).flatten(1).norm(dim=1)


def test_guidance_is_the_gradient_of_the_loss() -> None:
    model = lopsided()
    guided = SelfGuided(model, 0.7, renoise=0.4, until=0.2, normalise=False, seed=3)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((5, *SHAPE)))
    t = torch.full((5,), 0.6).double()
    noise, mean = guided._noise.double().expand(5, *SHAPE), model.mean(x, t)
    gradient = torch.zeros_like(x)
    for place in np.ndindex(*SHAPE):
        step = torch.zeros(SHAPE).double()
        step[place] = 1e-5
        ahead, behind = (lost(model, x + sign * step, t, noise, mean) for sign in (1, -1))
        gradient[(slice(None), *place)] = (ahead - behind) / 2e-5
    alpha, sigma = model.levels(t)
    expected = mean + 0.7 * sigma.square() / alpha * gradient
    torch.testing.assert_close(guided.mean(x, t), expected, rtol=1e-4, atol=1e-5)
    # which is the score plus the gradient
    torch.testing.assert_close(guided.score(x, t), model.score(x, t) + 0.7 * gradient, rtol=1e-4, atol=1e-4)


def test_the_normalised_gradient_has_largest_entry_one() -> None:
    model = lopsided()
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((5, *SHAPE)))
    t = torch.full((5,), 0.6).double()
    alpha, sigma = model.levels(t)
    moved = (SelfGuided(model, 0.3, until=0.2).mean(x, t) - model.mean(x, t)) * alpha / sigma.square() / 0.3
    torch.testing.assert_close(moved.abs().flatten(1).amax(1), torch.ones(5).double())


def test_guidance_acts_early_and_is_counted() -> None:
    model = lopsided()
    guided = SelfGuided(model, 0.5, until=0.5)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((4, *SHAPE)))
    late = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
    torch.testing.assert_close(guided.mean(x, late), model.mean(x, late))
    assert guided.evaluations == 4
    mixed = torch.tensor([0.1, 0.9, 0.2, 0.9]).double()
    differs = (guided.mean(x, mixed) - model.mean(x, mixed)).flatten(1).abs().amax(1) > 1e-9
    assert differs.tolist() == [False, True, False, True]
    assert guided.evaluations == 4 + 16
    torch.testing.assert_close(
        torch.cat([guided.mean(x[i : i + 1], mixed[i : i + 1]) for i in range(4)]), guided.mean(x, mixed)
    )


def test_self_guidance_brings_out_the_minority() -> None:
    model = lopsided()
    plain = (drawn(DDPM(steps=20), model).mean(1) > 0).mean()
    # One noise serves all images, so a single seed may lead either way; over several the minority gains.
    guided = [SelfGuided(model, 1.0, renoise=0.5, until=0.3, seed=seed) for seed in range(4)]
    found = np.mean([(drawn(DDPM(steps=20), one).mean(1) > 0).mean() for one in guided])
    assert found > plain + 0.05


def test_a_self_guided_network_is_still_a_denoiser() -> None:
    network = nn.Conv2d(1, 1, 1)

    class Ignores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.inner(x)

    inner = FunctionDenoiser(Ignores(), VariancePreserving(), Prediction.NOISE, SHAPE, identity="conv")
    guided = SelfGuided(inner, 0.2)
    assert guided.module is inner.module
    assert guided.with_module(inner.module).digest == guided.digest != SelfGuided(inner, 0.3).digest
    assert guided.device == inner.device
    with pytest.raises(Unsupported):
        SelfGuided(EmpiricalDenoiser(torch.zeros(2, *SHAPE)), 0.2).module  # noqa: B018
    for wrong in ({"renoise": 0.0}, {"renoise": 1.0}, {"until": 1.5}):
        with pytest.raises(InvalidInput):
            SelfGuided(inner, 0.2, **wrong)
