"""A small world with known truth: a model that memorized some images, models that never saw them, a damaged one."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vestige.data.images import ImageSet
from vestige.erase.recover.recovery import Target
from vestige.execute import Context
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.schedule import Cosine
from vestige.store import Store

SIDE, CLASSES = 6, 2


class Net(nn.Module):
    """Two hidden layers over 6x6 pixels, time and class, predicting the clean image."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.embed = nn.Embedding(CLASSES, 8)
        self.body = nn.Sequential(nn.Linear(36 + 8 + 2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.out = nn.Linear(width, 36)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        angle = torch.stack([torch.cos(t * 1.57), torch.sin(t * 1.57)], 1)
        inputs = torch.cat([x.flatten(1), self.embed(condition), angle], 1)
        return x + self.out(self.body(inputs)).view_as(x)


def pictures(count: int, seed: int) -> ImageSet:
    """Random images of independent pixels, alike in kind whatever the seed."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 0.6, (count, 1, SIDE, SIDE)).clip(-1, 1)
    return ImageSet(((values + 1) * 127.5).round().astype(np.uint8), np.arange(count) % CLASSES)


def trained(images: ImageSet, seed: int = 0, steps: int = 800) -> FunctionDenoiser:
    """Adam on the squared error of the noise, which is that of the velocity times alpha squared."""
    torch.manual_seed(seed)
    network, draw = Net(), torch.Generator().manual_seed(seed)
    rows = torch.randint(len(images), (steps, 64), generator=draw)
    t = torch.rand((steps, 64), generator=draw) * 0.98 + 0.01
    noise = torch.randn((steps, 64, 1, SIDE, SIDE), generator=draw)
    alpha, sigma = (part.view(steps, 64, 1, 1, 1) for part in Cosine().alpha_sigma(t.flatten()))
    clean, labels = images.floats()[rows], torch.from_numpy(images.labels)[rows]
    x_t, velocity = alpha * clean + sigma * noise, alpha * noise - sigma * clean
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    for step in range(steps):
        found = network(x_t[step], t[step], labels[step]) - velocity[step]
        optimizer.zero_grad()
        (alpha[step] * found).square().mean().backward()
        optimizer.step()
    return FunctionDenoiser(network, Cosine(), Prediction.VELOCITY, (1, SIDE, SIDE), identity="net", classes=CLASSES)


@pytest.fixture(scope="session")
def learn():
    """Trains the small network on images: ``learn(images, seed, steps)``."""
    return trained


def damaged(model: FunctionDenoiser) -> FunctionDenoiser:
    """The same model with another bias in its last layer: a high error, all knowledge below it."""
    module = copy.deepcopy(model.module)
    with torch.no_grad():
        module.out.bias.add_(0.4 * torch.randn(36, generator=torch.Generator().manual_seed(5)))
    return model.with_module(module)


@dataclass(frozen=True)
class World:
    forgotten: ImageSet
    unseen: ImageSet
    base: FunctionDenoiser
    reference: FunctionDenoiser
    other: FunctionDenoiser

    def target(self, erased, *, reference=True, unseen=True) -> Target:
        return Target(
            erased,
            self.base,
            self.forgotten,
            self.unseen if unseen else None,
            self.reference if reference else None,
        )

    @property
    def damaged(self) -> FunctionDenoiser:
        return damaged(self.base)


@pytest.fixture(scope="session")
def world() -> World:
    """16 forgotten images among 48; models were trained with them, and twice without them."""
    forgotten, kept, unseen = pictures(16, 1), pictures(32, 2), pictures(24, 3)
    whole = ImageSet(np.concatenate([forgotten.pixels, kept.pixels]), np.concatenate([forgotten.labels, kept.labels]))
    return World(forgotten, unseen, trained(whole), trained(kept, 1), trained(kept, 2))


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """One store for all tests: what is kept there is keyed by everything that determines it."""
    return Context(Store(tmp_path_factory.mktemp("recovery")))
