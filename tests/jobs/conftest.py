from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image

from vestige.audit.extraction.generate_and_filter import GenerateAndFilter
from vestige.audit.membership.denoising_loss import DenoisingLoss
from vestige.models.sampler import DDIM

Pixels = npt.NDArray[np.uint8]
FLAT = (40, 120, 200)
"""The colour that the memorizing model always draws."""


def save_model(
    folder: Path, *, size: int = 8, classes: int = 0, prediction: str = "v_prediction", flat: bool = False
) -> Path:
    """A diffusers folder with a tiny untrained network; with ``flat`` every answer is one even colour."""
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=size,
        in_channels=3,
        out_channels=3,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        norm_num_groups=2,
        add_attention=False,
        num_class_embeds=classes or None,
    )
    if flat:
        with torch.no_grad():
            network.conv_out.weight.mul_(1e-3)
            network.conv_out.bias.copy_(torch.tensor(FLAT) / 127.5 - 1)
    scheduler = DDPMScheduler(num_train_timesteps=50, prediction_type="sample" if flat else prediction)
    DDPMPipeline(network, scheduler).save_pretrained(folder, safe_serialization=True)
    return folder


def save_images(folder: Path, pixels: Pixels, classes: int = 0) -> Path:
    """PNG files, in one sub-folder a class if there are classes; image i belongs to class i mod classes."""
    for i, image in enumerate(pixels):
        place = folder / f"class-{i % classes}" if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.moveaxis(image, 0, -1)).save(place / f"{i:03d}.png")
    return folder


def noise(seed: int, count: int, size: int = 8) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


def flat_image(size: int = 8) -> Pixels:
    return np.broadcast_to(np.array(FLAT, np.uint8)[None, :, None, None], (1, 3, size, size)).copy()


@dataclass(frozen=True)
class World:
    """Models and images of 8x8 pixels on disk: `flat` memorized the first training image, of which there are 4."""

    root: Path
    flat: Path
    plain: Path
    train: Path
    others: Path
    save_model: Callable[..., Path] = save_model
    save_images: Callable[..., Path] = save_images
    noise: Callable[..., Pixels] = noise

    def settings(self, generations: int = 12, rows: int = 6) -> dict[str, object]:
        """Little work, for `audit`."""
        attacks = [GenerateAndFilter(generations=generations), DenoisingLoss(rows=rows, draws=1)]
        return {"attacks": attacks, "sampler": DDIM(steps=2)}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    train = np.concatenate([np.repeat(flat_image(), 4, 0), noise(0, 8)])
    return World(
        root,
        save_model(root / "flat", flat=True),
        save_model(root / "plain"),
        save_images(root / "train", train),
        save_images(root / "others", noise(1, 8)),
    )


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code and streams."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run the command line in this process."""
    from vestige.cli import main

    def run(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["vestige", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        streams = capsys.readouterr()
        return Answer(code, streams.out, streams.err)

    return run
