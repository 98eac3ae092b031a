from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.vq import vq

from vestige.audit.extraction.surrogate import (
    FittedGaussian,
    NoisyClassifier,
    Steered,
    accuracy,
    commonest,
    fit,
    lloyd,
)
from vestige.data.images import to_float
from vestige.models.oracle import EmpiricalDenoiser, gaussian_denoiser
from vestige.models.sampler import DDIM
from vestige.models.schedule import Cosine, RectifiedFlow, VariancePreserving


def blobs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Dark and bright noise of 6x6 pixels, by turns."""
    labels = np.arange(80) % 2
    noise = np.random.default_rng(seed).integers(0, 60, (80, 1, 6, 6))
    return (noise + 190 * labels[:, None, None, None]).astype(np.uint8), labels.astype(np.int64)


@given(st.integers(0, 50), st.integers(2, 6))
def test_clusters_are_a_fixed_point_of_nearest_centres(seed: int, count: int) -> None:
    features = np.random.default_rng(seed).standard_normal((40, 3))
    labels = lloyd(features, count, seed)
    centres = np.stack([features[labels == c].mean(0) for c in range(labels.max() + 1)])
    assert labels.max() + 1 <= count
    np.testing.assert_array_equal(vq(features, centres)[0], labels)
    np.testing.assert_array_equal(lloyd(features, count, seed), labels)


def test_fewer_distinct_rows_than_clusters_give_fewer_clusters() -> None:
    labels = lloyd(np.repeat(np.eye(2), 5, 0), 4, 0)
    assert np.unique(labels[:5]).size == np.unique(labels[5:]).size == 1
    assert set(labels.tolist()) == {0, 1}


@pytest.fixture(scope="module")
def trained() -> NoisyClassifier:
    pixels, labels = blobs()
    weights = fit(pixels, labels, 2, VariancePreserving(), steps=60, seed=3)
    np.testing.assert_array_equal(weights, fit(pixels, labels, 2, VariancePreserving(), steps=60, seed=3))
    return NoisyClassifier(1, 2).load_vector(weights)


def test_the_classifier_knows_clusters_it_was_not_shown(trained: NoisyClassifier) -> None:
    pixels, labels = blobs(1)
    assert accuracy(trained, pixels, labels, VariancePreserving(), 0.3) >= 78
    assert accuracy(trained, pixels, labels, VariancePreserving(), 1.0) < 65


def test_the_gradient_is_that_of_the_log_probability(trained: NoisyClassifier) -> None:
    model = Steered(EmpiricalDenoiser(to_float(blobs()[0])), trained, scale=0.01)
    x, t, c = torch.randn(2, 1, 6, 6, dtype=torch.float64), torch.tensor([0.4, 0.7]).double(), torch.tensor([0, 1])
    alpha, sigma = model.levels(t)

    def log_probability(at: torch.Tensor) -> torch.Tensor:
        scale = (alpha.square() + sigma.square()).sqrt()
        return trained(at / scale, t).log_softmax(1).gather(1, c[:, None]).flatten()

    step = torch.zeros_like(x)
    step[:, 0, 2, 3] = 1e-5
    numeric = (log_probability(x + step) - log_probability(x - step)) / 2e-5
    torch.testing.assert_close(model.gradient(x, t, c)[:, 0, 2, 3], numeric, rtol=1e-5, atol=1e-8)
    # The score that belongs to the steered mean is the model's plus a hundredth of the gradient.
    expected = model.inner.score(x, t) + 0.01 * model.gradient(x, t, c)
    torch.testing.assert_close(model.score(x, t, c), expected)
    torch.testing.assert_close(model.mean(x, t), model.inner.mean(x, t))


@pytest.mark.parametrize("schedule", [VariancePreserving(), RectifiedFlow()])
def test_steered_samples_fall_into_their_cluster(schedule: VariancePreserving | RectifiedFlow) -> None:
    pixels, labels = blobs()
    weights = fit(pixels, labels, 2, schedule, steps=60, seed=0)
    model = Steered(FittedGaussian(pixels, schedule), NoisyClassifier(1, 2).load_vector(weights), scale=4.0)
    start = torch.from_numpy(np.random.default_rng(0).standard_normal((40, 1, 6, 6)).astype(np.float32))
    asked = torch.arange(40) % 2
    bright = DDIM(steps=10).sample(model, start, asked, lambda _: start).mean((1, 2, 3)) > 0
    assert (bright == asked.bool()).float().mean() > 0.9


@pytest.mark.parametrize("count", [30, 200])
def test_the_fitted_gaussian_is_the_gaussian_of_that_mean_and_covariance(count: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, 6, 6), dtype=np.uint8)
    flat = to_float(pixels).double().flatten(1)
    exact = gaussian_denoiser(flat.mean(0).view(1, 6, 6), flat.T.cov(), Cosine())
    fitted = FittedGaussian(pixels, Cosine())
    x, t = torch.randn(5, 1, 6, 6, dtype=torch.float64), torch.linspace(0.1, 1, 5, dtype=torch.float64)
    torch.testing.assert_close(fitted.mean(x, t), exact.mean(x, t))
    assert fitted.digest != FittedGaussian(pixels[::-1].copy(), Cosine()).digest


def test_the_commonest_class_of_a_cluster_is_asked_for() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    assert commonest(None, labels) is None
    asked = commonest(np.array([5, 3, 3, 1, 0, 7]), labels)
    assert asked is not None
    assert asked.tolist() == [3, 0, 7]
