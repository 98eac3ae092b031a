"""The critic that the portrait's generator is trained against: the residual one of StyleGAN2.

Karras et al. 2020 (arXiv 1912.04958, figure 7c): residual blocks that halve the side, weights at unit scale, and
before the end one more channel that tells how much a group of images varies (Karras et al. 2018, arXiv 1710.10196).
"""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vestige.models.adapters.stylegan2.layers import Dense, leaky, smooth

GROUP = 4
"""Images whose spread is measured together; batches are multiples of it."""


class Convolution(nn.Module):
    """x * w / sqrt(inputs side^2), after a blur and at every second pixel if ``down``; no bias where ``linear``."""

    def __init__(self, inputs: int, outputs: int, side: int, *, down: bool = False, linear: bool = False) -> None:
        super().__init__()
        self.down, self.gain = down, 1 / math.sqrt(inputs * side * side)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, side, side))
        self.bias = None if linear else nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps; with a bias, rectified."""
        side = self.weight.shape[-1]
        if self.down:
            x = functional.conv2d(smooth(x, padding=(side + 1) // 2), self.weight * self.gain, self.bias, stride=2)
        else:
            x = functional.conv2d(x, self.weight * self.gain, self.bias, padding=side // 2)
        return x if self.bias is None else leaky(x)


class Block(nn.Module):
    """Two convolutions and a straight way past them, to half the side."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = Convolution(inputs, inputs, 3)
        self.second = Convolution(inputs, outputs, 3, down=True)
        self.past = Convolution(inputs, outputs, 1, down=True, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps [n, outputs, side / 2, side / 2]."""
        return (self.second(self.first(x)) + self.past(x)) / math.sqrt(2)


def spread(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 h w"]:
    """Standard deviation over each group of images, averaged over the features: one number a group, everywhere."""
    groups = x.view(GROUP, -1, *x.shape[1:])
    deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    return deviation.view(-1, 1, 1, 1).repeat(GROUP, 1, *x.shape[2:])


class PortraitCritic(nn.Module):
    """Images [n, 3, side, side] in [-1, 1] to logits [n]; ``channels`` are those of sides 4, 8 … side."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        down = channels[::-1]
        self.entry = Convolution(3, down[0], 1)
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in itertools.pairwise(down)))
        self.last = Convolution(channels[0] + 1, channels[0], 3)
        self.hidden = Dense(channels[0] * 16, channels[0])
        self.logit = Dense(channels[0], 1)

    def forward(self, images: Float[Tensor, "n 3 s s"]) -> Float[Tensor, " n"]:
        """One logit an image, positive where it looks real; n is a multiple of the group's size."""
        x = self.blocks(self.entry(images))
        x = self.last(torch.cat([x, spread(x)], 1))
        return self.logit(leaky(self.hidden(x.flatten(1)))).squeeze(1)
