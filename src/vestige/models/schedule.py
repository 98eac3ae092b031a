"""Noise schedules: ``x_t = alpha(t) x_0 + sigma(t) eps`` with time 0 clean and 1 noise."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vestige.digest import digest_tensors

Times = Float[Tensor, "*n"]


class Schedule(ABC):
    """Maps time to signal and noise levels."""

    @abstractmethod
    def alpha_sigma(self, t: Times) -> tuple[Times, Times]:
        """Signal level alpha >= 0 and noise level sigma >= 0 at times in [0, 1]."""

    @abstractmethod
    def key(self) -> dict[str, Any]:
        """Plain values that identify the schedule."""

    def nearest_grid(self, t: Times) -> Times:
        """The time nearest to ``t`` at which a network was trained (itself, if continuous)."""
        return t

    def time_of_ratio(self, ratio: float) -> float:
        """First time at which sigma/alpha reaches ``ratio``, by bisection (the ratio grows with time)."""
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            alpha, sigma = self.alpha_sigma(torch.tensor(middle, dtype=torch.float64))
            low, high = (middle, high) if float(sigma) < ratio * float(alpha) else (low, middle)
        return high


@dataclass(frozen=True)
class VariancePreserving(Schedule):
    """Linear-beta VP diffusion of Song et al. 2021 (arXiv 2011.13456, equation 33)."""

    beta_min: float = 0.1
    beta_max: float = 20.0

    def alpha_sigma(self, t: Times) -> tuple[Times, Times]:
        """``alpha = exp(-B/2)``, ``sigma^2 = 1 - exp(-B)``, B the integrated beta."""
        integral = self.beta_min * t + (self.beta_max - self.beta_min) * t.square() / 2
        return torch.exp(-integral / 2), torch.sqrt(-torch.expm1(-integral))

    def key(self) -> dict[str, Any]:
        """Name and both betas."""
        return {"schedule": "vp", "beta_min": self.beta_min, "beta_max": self.beta_max}


@dataclass(frozen=True)
class Cosine(Schedule):
    """``alpha = cos(pi t / 2)``, ``sigma = sin(pi t / 2)`` (Nichol and Dhariwal 2021, without offset)."""

    def alpha_sigma(self, t: Times) -> tuple[Times, Times]:
        """A quarter of the unit circle."""
        # The cosine of a rounded pi/2 is not zero; this is, so that time 1 is pure noise in every precision.
        return torch.sin((1 - t) * math.pi / 2), torch.sin(t * math.pi / 2)

    def key(self) -> dict[str, Any]:
        """Name alone."""
        return {"schedule": "cosine"}


@dataclass(frozen=True)
class VarianceExploding(Schedule):
    """``alpha = 1`` and sigma geometric in time, 0 at time 0 (Song et al. 2021, equation 30)."""

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def alpha_sigma(self, t: Times) -> tuple[Times, Times]:
        """Signal untouched, noise up to ``sigma_max``."""
        sigma = self.sigma_min * (self.sigma_max / self.sigma_min) ** t
        return torch.ones_like(t), torch.where(t > 0, sigma, torch.zeros_like(t))

    def key(self) -> dict[str, Any]:
        """Name and both sigmas."""
        return {"schedule": "ve", "sigma_min": self.sigma_min, "sigma_max": self.sigma_max}


@dataclass(frozen=True)
class RectifiedFlow(Schedule):
    """Straight lines ``x_t = (1 - t) x_0 + t eps`` (Liu et al. 2023, arXiv 2209.03003)."""

    def alpha_sigma(self, t: Times) -> tuple[Times, Times]:
        """Linear interpolation."""
        return 1 - t, t

    def key(self) -> dict[str, Any]:
        """Name alone."""
        return {"schedule": "rectified-flow"}


@dataclass(frozen=True, eq=False)
class DiscreteTable(Schedule):
    """The N trained steps of a DDPM, ``alpha^2 = alphas_cumprod``; step i stands at time (i + 1)/N.

    Time 0 is the clean image. Other times are rounded to the nearest step.
    """

    alphas_cumprod: Float[Tensor, " steps"]

    @property
    def steps(self) -> int:
        """N, the number of trained steps."""
        return len(self.alphas_cumprod)

    def index(self, t: Times) -> Tensor:
        """Step index in 0 .. N-1 of each time (-1 for the clean image)."""
        return torch.round(t.double() * self.steps).long().clamp(0, self.steps) - 1

    def time(self, index: int) -> float:
        """Time of a step index."""
        return (index + 1) / self.steps

    def alpha_sigma(self, t: Times) -> tuple[Times, Times]:
        """Table look-up in float64, returned in the precision of ``t``."""
        table = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod.double().cpu()]).to(t.device)
        squared = table[self.index(t) + 1]
        return squared.sqrt().to(t.dtype), (1 - squared).sqrt().to(t.dtype)

    def nearest_grid(self, t: Times) -> Times:
        """Times of trained steps; the clean image maps to the first one."""
        return ((self.index(t).clamp_min(0) + 1).double() / self.steps).to(t.dtype)

    def key(self) -> dict[str, Any]:
        """Digest of the table."""
        return {"schedule": "table", "digest": digest_tensors({"alphas_cumprod": self.alphas_cumprod})}
