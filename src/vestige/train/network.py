"""The network that small models share: a ``UNet2DModel`` on the linear schedule of Ho et al. 2020."""

from __future__ import annotations

import math

import torch
from diffusers import DDPMScheduler, UNet2DModel

from vestige.errors import InvalidInput
from vestige.train.recipe import Target


def new_network(shape: tuple[int, int, int], classes: int, channels: tuple[int, ...], seed: int) -> UNet2DModel:
    """A network without attention, initialised from ``seed``; with classes, one more label means "no condition".

    Raises
    ------
    InvalidInput : the image cannot be halved as often as the network has levels.
    """
    depth = 2 ** (len(channels) - 1)
    if shape[1] % depth or shape[2] % depth:
        raise InvalidInput(
            f"{len(channels)} levels halve an image of {shape[2]}x{shape[1]} pixels {len(channels) - 1} times.",
            expected=f"sides divisible by {depth}.",
            remedy="give fewer channels, one a level.",
        )
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return UNet2DModel(
            sample_size=shape[1] if shape[1] == shape[2] else (shape[1], shape[2]),
            in_channels=shape[0],
            out_channels=shape[0],
            block_out_channels=channels,
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * len(channels),
            up_block_types=("UpBlock2D",) * len(channels),
            norm_num_groups=math.gcd(8, *channels),
            add_attention=False,
            num_class_embeds=classes + 1 if classes else None,
        )


def new_scheduler(target: Target) -> DDPMScheduler:
    """1,000 steps, linear variances (Ho et al. 2020, arXiv 2006.11239)."""
    return DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear", prediction_type=target.value)
