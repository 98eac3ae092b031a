"""What a StyleGAN2 is made of: scaled dense layers, modulated convolutions, smooth upsampling.

Formulas are those of Karras et al. 2019 (StyleGAN, arXiv 1812.04948) and 2020 (StyleGAN2, arXiv 1912.04958). Every
part answers a row from that row alone.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-8
_SLOPE = 0.2
_TAPS = (1.0, 3.0, 3.0, 1.0)


def normalise(x: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    """Rows of mean square one: x / sqrt(mean x^2 + 1e-8)."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + EPSILON)


def leaky(x: Tensor) -> Tensor:
    """Leaky rectifier of slope 0.2, times sqrt(2) so that it about keeps the mean square."""
    return functional.leaky_relu(x, _SLOPE) * math.sqrt(2)


def _smoothing(x: Tensor, gain: float) -> Tensor:
    """The kernel [1, 3, 3, 1] x [1, 3, 3, 1] for each channel of x on its own, summing to ``gain``."""
    taps = torch.tensor(_TAPS, dtype=x.dtype, device=x.device)
    kernel = torch.outer(taps, taps)
    return (kernel * (gain / kernel.sum())).expand(x.shape[1], 1, -1, -1)


def smooth(x: Float[Tensor, "n c h w"], gain: float = 1.0, padding: int = 1) -> Tensor:
    """Blur by the taps [1, 3, 3, 1] in both directions, zeros around: [n, c, h + 2 padding - 3, ...]."""
    return functional.conv2d(x, _smoothing(x, gain), padding=padding, groups=x.shape[1])


def upsample(x: Float[Tensor, "n c h w"]) -> Tensor:
    """Twice the side: zeros between the pixels, then the blur with gain 4, so that a flat image keeps its height."""
    return functional.conv_transpose2d(x, _smoothing(x, 4.0), stride=2, padding=1, groups=x.shape[1])


class Dense(nn.Module):
    """x W^T rate / sqrt(inputs) + b rate: weights are stored at unit scale over the learning-rate multiplier."""

    def __init__(self, inputs: int, outputs: int, *, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.rate, self.gain = rate, rate / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias))

    def forward(self, x: Float[Tensor, "n i"]) -> Tensor:
        """Rows [n, outputs]."""
        return functional.linear(x, self.weight * self.gain, self.bias * self.rate)


class Modulated(nn.Module):
    """A convolution whose input channels are scaled by the style (equations 1 to 3 of StyleGAN2).

    w'_oik = s_i w_oik; with demodulation the outputs are divided by sqrt(sum_ik w'_oik^2 + 1e-8). Scaling the
    input and the output instead of the weights gives the same numbers with one convolution for the whole batch.
    """

    def __init__(self, inputs: int, outputs: int, style: int, *, side: int, demodulate: bool, up: bool = False) -> None:
        super().__init__()
        self.demodulate, self.up = demodulate, up
        self.weight = nn.Parameter(torch.randn(outputs, inputs, side, side))
        self.style = Dense(style, inputs, bias=1.0)

    def forward(self, x: Float[Tensor, "n i h w"], w: Float[Tensor, "n s"]) -> Tensor:
        """Feature maps [n, outputs, h, w], of twice the side if ``up``."""
        scale = self.style(w)
        if not self.demodulate:
            scale = scale * (1 / math.sqrt(self.weight[0].numel()))
        x = x * scale[:, :, None, None]
        if self.up:
            # Upsampling and convolution in one: every input pixel stamps the kernel, then the stamps are smoothed.
            x = smooth(functional.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2), gain=4.0)
        else:
            x = functional.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2)
        if not self.demodulate:
            return x
        power = scale.square() @ self.weight.square().sum((2, 3)).T
        return x * torch.rsqrt(power + EPSILON)[:, :, None, None]


class Layer(nn.Module):
    """Modulated 3x3 convolution, noise at a learned strength, bias, leaky rectifier."""

    def __init__(self, inputs: int, outputs: int, style: int, *, side: int, up: bool, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.convolution = Modulated(inputs, outputs, style, side=3, demodulate=True, up=up)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(side, side))
        self.noise: Tensor

    def forward(self, x: Tensor, w: Tensor, noise: Float[Tensor, "n 1 s s"] | None) -> Tensor:
        """Feature maps; the layer's own noise unless another is given."""
        x = self.convolution(x, w) + (self.noise if noise is None else noise) * self.strength
        return cut(leaky(x + self.bias[:, None, None]), self.clamp)


class Picture(nn.Module):
    """Feature maps to image channels: a modulated 1x1 convolution without demodulation, and a bias."""

    def __init__(self, inputs: int, outputs: int, style: int, *, clamp: float | None) -> None:
        super().__init__()
        self.clamp = clamp
        self.convolution = Modulated(inputs, outputs, style, side=1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Image [n, channels, h, w]."""
        return cut(self.convolution(x, w) + self.bias[:, None, None], self.clamp)


def cut(x: Tensor, clamp: float | None) -> Tensor:
    """The same, cut at plus and minus ``clamp`` if there is one."""
    return x if clamp is None else x.clamp(-clamp, clamp)
