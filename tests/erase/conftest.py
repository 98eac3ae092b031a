from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Tensor, nn

from vestige.data.images import ImageSet
from vestige.erase.request import Request
from vestige.execute import Context
from vestige.models.adapters.diffusers import DiffusersDenoiser
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Prediction
from vestige.models.schedule import Cosine
from vestige.store import Store

CLASSES = 3


class Tiny(nn.Module):
    """Two hidden layers over 6x6 pixels, time and, if there are any, class."""

    def __init__(self, classes: int, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Embedding(max(classes, 1), 8)
        self.body = nn.Sequential(
            nn.Linear(36 + 8 + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 36)
        )

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        label = torch.zeros(len(x), dtype=torch.long) if condition is None else condition
        return self.body(torch.cat([x.flatten(1), self.embed(label), t[:, None]], 1)).view_as(x)


def denoiser(classes: int = CLASSES, prediction: Prediction = Prediction.NOISE, width: int = 48) -> FunctionDenoiser:
    torch.manual_seed(0)
    return FunctionDenoiser(Tiny(classes, width), Cosine(), prediction, (1, 6, 6), identity="tiny", classes=classes)


def images(count: int = 12, labels: bool = True) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, 6, 6), dtype=np.uint8)
    return ImageSet(pixels, np.arange(count) % CLASSES if labels else None)


@dataclass(frozen=True)
class Workshop:
    """Builders that the tests share."""

    denoiser: Callable[..., FunctionDenoiser]
    images: Callable[..., ImageSet]

    def request(self, forget: int = 3, labels: bool = True) -> Request:
        """Forget the first images, keep the others, which stand 1, 2, 3, … times in the training data."""
        data = self.images(labels=labels)
        kept = np.arange(forget, len(data))
        return Request(data.take(range(forget)), data.take(kept), np.arange(1, len(kept) + 1))

    def context(self, folder: Path, seed: int = 0) -> Context:
        return Context(Store(folder), seed)


@pytest.fixture(scope="session")
def shop() -> Workshop:
    return Workshop(denoiser, images)


@pytest.fixture
def pipeline_folder(tmp_path: Path) -> Path:
    """A saved diffusers pipeline with a very small network."""
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
        add_attention=False,
    )
    DiffusersDenoiser(network, DDPMScheduler(prediction_type="v_prediction")).save(tmp_path / "base")
    return tmp_path / "base"
