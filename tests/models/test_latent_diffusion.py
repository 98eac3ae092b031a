from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vestige.data.images import to_uint8
from vestige.errors import InvalidInput
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.generator import DiffusionGenerator
from vestige.models.latent_diffusion import few_step_generator
from vestige.models.oracle import gaussian_denoiser
from vestige.models.sampler import DDIM
from vestige.models.schedule import VarianceExploding, VariancePreserving

SHAPE = (1, 2, 2)


@pytest.mark.parametrize("schedule", [VariancePreserving(), VarianceExploding(sigma_max=5.0)])
def test_its_images_are_those_of_the_sampler(schedule) -> None:
    covariance = torch.diag(torch.tensor([0.3, 0.2, 0.1, 0.05])).double() ** 2
    denoiser = gaussian_denoiser(torch.full(SHAPE, 0.1).double(), covariance, schedule)
    generator = few_step_generator(denoiser, 5)
    rows = np.arange(6)
    made = to_uint8(generator.made(generator.latents(rows, 3)))
    sampled = DiffusionGenerator(denoiser, DDIM(steps=5, clip=False)).sample(rows, 3)
    assert np.abs(made.astype(int) - sampled).max() <= 1
    assert generator.latent_shape == generator.shape == SHAPE


def test_its_gradient_is_that_of_finite_differences() -> None:
    denoiser = gaussian_denoiser(torch.zeros(SHAPE).double(), 0.01 * torch.eye(4).double())
    network = few_step_generator(denoiser, 3).network
    z = torch.from_numpy(np.random.default_rng(0).standard_normal((2, *SHAPE))).requires_grad_()
    assert torch.autograd.gradcheck(network, z)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 3, padding=1)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return self.drop(self.layer(x)).tanh() / 2 * (1 + labels.view(-1, 1, 1, 1).float())


def test_networks_with_classes() -> None:
    torch.manual_seed(0)
    denoiser = FunctionDenoiser(Net(), VariancePreserving(), Prediction.CLEAN, SHAPE, identity="n", classes=2)
    generator = few_step_generator(denoiser, 2)
    before = denoiser.evaluations
    z, labels = generator.latents(np.arange(3), 0).requires_grad_(), generator.labels_of(np.arange(3))
    images = generator.outputs(z, labels)
    assert denoiser.evaluations - before == 3 * 2
    (gradient,) = torch.autograd.grad(images.sum(), z)
    assert gradient.abs().sum() > 0
    assert denoiser.evaluations - before == 3 * 2 * 2  # each step once more on the way back
    assert dataclasses.astuple(generator.calls) == (3, 3)
    with pytest.raises(InvalidInput):
        few_step_generator(denoiser, 0)
    denoiser.module.train()
    with pytest.raises(InvalidInput, match="training mode"):
        generator.outputs(z, labels)
