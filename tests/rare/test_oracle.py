from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from vestige.errors import InvalidInput, ShapeMismatch
from vestige.rare.oracle import Linear, PlantedMode, known_density


def test_the_density_of_a_linear_generator_is_that_of_its_gaussian() -> None:
    rng = np.random.default_rng(0)
    matrix, offset = rng.standard_normal((3, 5)), rng.standard_normal(3)
    oracle = Linear(torch.from_numpy(matrix), torch.from_numpy(offset))
    generator = oracle.generator()
    x = generator.made(generator.latents(np.arange(40), 0))
    expected = multivariate_normal(offset, matrix @ matrix.T).logpdf(x.numpy())
    np.testing.assert_allclose(oracle.log_prob(x).numpy(), expected, rtol=1e-10)
    many = generator.made(generator.latents(np.arange(4000), 1)).numpy()
    np.testing.assert_allclose(np.cov(many.T), matrix @ matrix.T, atol=0.06 * np.abs(matrix @ matrix.T).max())


def test_linear_generators_without_a_density_are_refused() -> None:
    with pytest.raises(InvalidInput, match="linearly dependent"):
        Linear(torch.ones(2, 3), torch.zeros(2))
    with pytest.raises(ShapeMismatch):
        Linear(torch.eye(3), torch.zeros(2))


@pytest.mark.parametrize("mode", [PlantedMode(), PlantedMode(dimension=2, weight=0.2, distance=9, width=1.0)])
def test_the_transport_carries_normal_quantiles_to_those_of_the_mixture(mode: PlantedMode) -> None:
    z = torch.linspace(-7, 7, 141, dtype=torch.float64)
    x, quantile = mode.transport(z).numpy(), norm.sf(z.numpy())
    # Tails from their own side, so that 1e-12 is not lost beside 1.
    above = (1 - mode.weight) * norm.sf(x) + mode.weight * norm.sf((x - mode.distance) / mode.width)
    below = (1 - mode.weight) * norm.cdf(x) + mode.weight * norm.cdf((x - mode.distance) / mode.width)
    right = z.numpy() > 0
    np.testing.assert_allclose(above[right], quantile[right], rtol=1e-6)
    np.testing.assert_allclose(below[~right], norm.cdf(z.numpy()[~right]), rtol=1e-6)
    assert (np.diff(x) > 0).all()


def test_the_gradient_of_the_transport_is_exact(planted: PlantedMode) -> None:
    z = torch.tensor([[-2.0, 0.1, 1, 1], [0.3, 1, 0, 0], [3.5, 0, 2, 1], [3.9, 1, 1, 1]], dtype=torch.float64)
    assert torch.autograd.gradcheck(planted.generator().network, z.requires_grad_(), eps=1e-6, atol=1e-4)


def test_the_density_is_normalised_and_matches_scipy(planted: PlantedMode) -> None:
    grid = torch.linspace(-12, 16, 40001, dtype=torch.float64)
    assert float(torch.trapezoid(planted.log_first(grid).exp(), grid)) == pytest.approx(1, abs=1e-9)
    x = planted.sample(50, 0)
    first = (1 - planted.weight) * norm.pdf(x[:, 0]) + planted.weight * norm.pdf(x[:, 0], planted.distance, 0.5)
    expected = np.log(first) + norm.logpdf(x[:, 1:]).sum(1)
    np.testing.assert_allclose(planted.log_prob(torch.from_numpy(x)).numpy(), expected, rtol=1e-10)


def test_the_rare_mode_has_its_weight() -> None:
    mode = PlantedMode(dimension=2, weight=0.05)
    generator = mode.generator()
    for x in (mode.sample(4000, 0), generator.made(generator.latents(np.arange(4000), 0)).numpy()):
        share = mode.is_rare(x).mean()
        assert abs(share - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 4000)


@pytest.mark.parametrize("wrong", [{"dimension": 0}, {"weight": 0.0}, {"width": 0.0}, {"distance": 5.0}])
def test_senseless_modes_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        PlantedMode(**wrong)


def test_a_known_density_is_itself(planted: PlantedMode) -> None:
    x = planted.sample(30, 0)
    density = known_density(planted.log_prob, x, identity="known")
    expected = planted.log_prob(torch.from_numpy(x))
    torch.testing.assert_close(density.log_prob(torch.from_numpy(x)), expected)
    assert density.log_volume == 0
    assert density.percentile(expected.min()[None] - 1).tolist() == [0]
    assert density.held_out.value == pytest.approx(float(expected.mean()))
