"""The mean of a mapping network's styles, towards which truncation pulls."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vestige.models.adapters.stylegan2.files import StyleGan2Weights
from vestige.randomness import Stream, normal

LATENTS = 10_000
"""Latents over which the mean is taken."""


def mean_style(weights: StyleGan2Weights) -> Float[Tensor, " s"]:
    """The mean style of 10,000 seeded latents, in float32; of classes by turns, if there are any."""
    rows = np.arange(LATENTS)
    latents = torch.from_numpy(normal(0, Stream.SAMPLE, rows, (weights.form.latent,))).double()
    labels = torch.from_numpy(rows % weights.form.classes) if weights.form.classes else None
    return weights.network().mapping.double()(latents, labels).mean(0).float()
