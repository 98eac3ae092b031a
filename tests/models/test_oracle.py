from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from vestige.data.images import to_float
from vestige.errors import EmptySet, InvalidInput
from vestige.models.generator import DiffusionGenerator
from vestige.models.oracle import EmpiricalDenoiser, MixtureDenoiser, gaussian_denoiser
from vestige.models.sampler import DDIM, DDPM, Heun
from vestige.models.schedule import Cosine, RectifiedFlow, VarianceExploding, VariancePreserving

SCHEDULES = [VariancePreserving(), VarianceExploding(), RectifiedFlow(), Cosine()]
TIMES = torch.tensor([0.05, 0.3, 0.7, 1.0], dtype=torch.float64)


def bytes_of(n: int, shape: tuple[int, int, int] = (1, 3, 3), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def noisy(denoiser, fresh) -> torch.Tensor:
    return denoiser.noised(0.1 * fresh(0), fresh(1), TIMES)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_gaussian_is_the_closed_formula(gaussian, noises, schedule):
    oracle = gaussian_denoiser(*gaussian, schedule)
    x_t = noisy(oracle, noises(4, (1, 2, 2)))
    mean, covariance = gaussian[0].flatten().numpy(), gaussian[1].numpy()
    for row, (a, s) in enumerate(zip(*(v.numpy() for v in schedule.alpha_sigma(TIMES)), strict=True)):
        gain = np.linalg.solve(a**2 * covariance + s**2 * np.eye(4), x_t[row].numpy().ravel() - a * mean)
        expected = mean + a * covariance @ gain
        assert np.allclose(oracle.mean(x_t, TIMES)[row].numpy().ravel(), expected, rtol=0, atol=1e-12)


@given(st.integers(0, 1000), st.floats(0.05, 0.95))
def test_mixture_is_the_posterior_weighted_sum_of_gaussians(seed, t):
    rng = np.random.default_rng(seed)
    means, roots = rng.uniform(-1, 1, (3, 1, 1, 2)), rng.normal(0, 0.3, (3, 2, 2))
    covariances, weights = roots @ roots.transpose(0, 2, 1), rng.uniform(0.1, 5, 3)
    parts = [torch.from_numpy(v) for v in (means, covariances)]
    time = torch.tensor([t], dtype=torch.float64)
    a, s = (float(v) for v in VariancePreserving().alpha_sigma(time))
    x = rng.uniform(-1, 1, (1, 1, 1, 2))
    shares = [
        w * multivariate_normal(a * m.ravel(), a**2 * c + s**2 * np.eye(2)).pdf(x.ravel())
        for w, m, c in zip(weights, means, covariances, strict=True)
    ]
    single = [gaussian_denoiser(m, c).mean(torch.from_numpy(x), time).numpy() for m, c in zip(*parts, strict=True)]
    expected = np.average(single, axis=0, weights=shares)
    found = MixtureDenoiser(*parts, torch.from_numpy(weights)).mean(torch.from_numpy(x), time).numpy()
    assert np.allclose(found, expected, rtol=0, atol=1e-8)


def test_mixture_of_far_components_picks_the_right_one_however_rare():
    means = torch.tensor([-0.9, 0.9])[:, None, None, None].expand(2, 1, 2, 2)
    covariances = 1e-4 * torch.eye(4).expand(2, 4, 4)
    weights = torch.tensor([0.9999, 0.0001])
    oracle = MixtureDenoiser(means, covariances, weights)
    t = torch.full((2,), 0.1)
    found = oracle.mean(oracle.noised(means, torch.zeros_like(means), t), t)
    assert torch.allclose(found, means, atol=1e-4)
    # With nothing to see, the answer is the mean of the mixture.
    blind = oracle.mean(torch.zeros(1, 1, 2, 2), torch.ones(1))
    assert torch.allclose(blind, torch.full_like(blind, -0.9 * 0.9998), atol=1e-3)


@pytest.mark.parametrize("sampler", [DDIM(10), DDPM(30), Heun(8)])
def test_gaussian_on_a_plane_stays_on_it(sampler):
    axes = np.linalg.qr(np.random.default_rng(1).standard_normal((9, 9)))[0]
    plane, off = axes[:, :2], axes[:, 2:]
    mean = torch.full((1, 3, 3), 0.1, dtype=torch.float64)
    oracle = gaussian_denoiser(mean, torch.from_numpy(plane @ np.diag([0.02, 0.01]) @ plane.T))
    start = torch.from_numpy(np.random.default_rng(2).standard_normal((50, 1, 3, 3)))
    made = sampler.sample(oracle, start, None, lambda draw: start.roll(draw, 0)) - mean
    flat = made.flatten(1).numpy()
    assert np.abs(flat @ off).max() < 1e-7
    assert (flat @ plane).std(0).min() > 0.02


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("labelled", [False, True])
def test_empirical_equals_brute_force(noises, schedule, labelled):
    train, weights = to_float(bytes_of(7)), torch.tensor([1.0, 2, 3, 1, 5, 1, 1])
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 2])
    oracle = EmpiricalDenoiser(train, schedule, labels=labels if labelled else None, weights=weights)
    condition = torch.tensor([0, 1, 2, 0]) if labelled else None
    x_t = noisy(oracle, noises(4, (1, 3, 3)))
    found = oracle.mean(x_t, TIMES, condition).numpy()
    alphas, sigmas = (v.numpy() for v in schedule.alpha_sigma(TIMES))
    for row in range(4):
        logs, images = [], []
        for i, image in enumerate(train.double().numpy()):
            if condition is None or labels[i] == condition[row]:
                gap = np.square(x_t[row].numpy() - alphas[row] * image).sum()
                logs.append(np.log(float(weights[i])) - gap / (2 * sigmas[row] ** 2))
                images.append(image)
        shares = np.exp(np.array(logs) - max(logs))
        assert np.allclose(found[row], np.average(images, axis=0, weights=shares), rtol=0, atol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_noise_the_answer_is_the_image(gaussian, noises, schedule):
    now, x = torch.zeros(4, dtype=torch.float64), 0.3 * noises(4, (1, 2, 2))(0)
    assert torch.allclose(gaussian_denoiser(*gaussian, schedule).mean(x, now), x, rtol=0, atol=1e-9)
    train = to_float(bytes_of(4)).double()
    assert torch.equal(EmpiricalDenoiser(train.float(), schedule).mean(train, now), train)


def test_weights_act_like_repeated_rows(noises):
    train, counts = to_float(bytes_of(4)), torch.tensor([1, 4, 2, 1])
    weighted = EmpiricalDenoiser(train, weights=counts.double())
    repeated = EmpiricalDenoiser(train.repeat_interleave(counts, 0))
    x_t = noisy(weighted, noises(4, (1, 3, 3)))
    assert torch.allclose(weighted.mean(x_t, TIMES), repeated.mean(x_t, TIMES), rtol=0, atol=1e-12)
    assert weighted.digest != EmpiricalDenoiser(train).digest


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddim_on_the_perfect_memorizer_returns_its_training_rows_exactly(schedule):
    train = bytes_of(6)
    made = DiffusionGenerator(EmpiricalDenoiser(to_float(train), schedule), DDIM(20)).sample(np.arange(60), seed=0)
    rows = {row.tobytes(): i for i, row in enumerate(train)}
    assert all(image.tobytes() in rows for image in made)
    assert {rows[image.tobytes()] for image in made} == set(range(6))


def test_labels_restrict_samples_to_their_class():
    train, labels = bytes_of(6), torch.tensor([0, 1, 2, 0, 1, 2])
    generator = DiffusionGenerator(EmpiricalDenoiser(to_float(train), labels=labels), DDIM(20))
    asked = np.arange(30)
    made = generator.sample(asked, seed=0)
    for row, image in zip(asked, made, strict=True):
        assert image.tobytes() in {train[i].tobytes() for i in np.flatnonzero(labels.numpy() == row % 3)}


def test_a_class_without_images_is_refused():
    oracle = EmpiricalDenoiser(to_float(bytes_of(2)), labels=torch.tensor([0, 2]))
    with pytest.raises(EmptySet, match="no image of class 1"):
        oracle.mean(torch.zeros(3, 1, 3, 3), torch.full((3,), 0.5), torch.tensor([0, 1, 2]))


def test_what_cannot_be_an_oracle_is_refused():
    with pytest.raises(EmptySet):
        EmpiricalDenoiser(torch.zeros(0, 1, 2, 2))
    with pytest.raises(InvalidInput, match="side 3"):
        gaussian_denoiser(torch.zeros(1, 2, 2), torch.eye(3))


def test_digests_follow_every_parameter(gaussian):
    mean, covariance = gaussian
    train = to_float(bytes_of(3))
    digests = [
        gaussian_denoiser(mean, covariance).digest,
        gaussian_denoiser(mean, covariance, Cosine()).digest,
        gaussian_denoiser(mean, 2 * covariance).digest,
        gaussian_denoiser(-mean, covariance).digest,
        EmpiricalDenoiser(train).digest,
        EmpiricalDenoiser(train[:2]).digest,
        EmpiricalDenoiser(train, labels=torch.tensor([0, 1, 0])).digest,
        EmpiricalDenoiser(train, labels=torch.tensor([0, 1, 1])).digest,
        EmpiricalDenoiser(train, RectifiedFlow()).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert EmpiricalDenoiser(train.clone()).digest == digests[4]
