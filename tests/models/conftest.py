"""Noise shared by two implementations, oracles of known moments and tiny networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Work this small is slower when it is shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def noises() -> Callable[..., Callable[[int], Tensor]]:
    """``noises(n, shape)`` gives ``fresh(draw)``: float64 standard normal, the same for a draw every time."""

    def build(n: int, shape: tuple[int, int, int], seed: int = 0) -> Callable[[int], Tensor]:
        def fresh(draw: int) -> Tensor:
            rng = np.random.default_rng([seed, draw])
            return torch.from_numpy(rng.standard_normal((n, *shape)))

        return fresh

    return build


@pytest.fixture(scope="session")
def gaussian() -> tuple[Tensor, Tensor]:
    """Mean [1, 2, 2] and covariance [4, 4] of images that hardly ever reach -1 or 1."""
    rng = np.random.default_rng(5)
    axes = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    covariance = axes @ np.diag(np.square([0.25, 0.22, 0.2, 0.18])) @ axes.T
    return torch.tensor([[[0.05, -0.05], [0.0, 0.02]]], dtype=torch.float64), torch.from_numpy(covariance)


@pytest.fixture(scope="session")
def tiny_unet() -> Callable[..., UNet2DModel]:
    """A network of forty thousand weights on grey 8x8 images; ``seed`` fixes the weights."""

    def build(seed: int = 0, **config: object) -> UNet2DModel:
        settings = {
            "sample_size": 8,
            "in_channels": 1,
            "out_channels": 1,
            "layers_per_block": 1,
            "block_out_channels": (8, 16),
            "norm_num_groups": 4,
            "down_block_types": ("DownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "UpBlock2D"),
            "add_attention": False,
        }
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return UNet2DModel(**{**settings, **config})

    return build
