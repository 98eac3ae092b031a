"""Samplers: from noise to images along a schedule."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vestige.errors import InvalidInput
from vestige.models.denoiser import Denoiser, Images, Labels
from vestige.models.schedule import DiscreteTable, Schedule

Fresh = Callable[[int], Tensor]
"""``fresh(draw)`` gives standard normal noise shaped like the batch, one stream a draw."""


class Spacing(Enum):
    """Which of the trained steps a short sampler visits (Lin et al. 2024, arXiv 2305.08891, table 2)."""

    LEADING = "leading"
    TRAILING = "trailing"
    LINSPACE = "linspace"

    def times(self, schedule: Schedule, steps: int) -> list[float]:
        """``steps + 1`` falling times, the last one 0.

        Raises
        ------
        InvalidInput : fewer steps than one, or more than were trained.
        """
        trained = schedule.steps if isinstance(schedule, DiscreteTable) else None
        if steps < 1 or (trained is not None and steps > trained):
            raise InvalidInput(
                f"{steps} sampling steps were asked for.",
                expected="at least 1." if trained is None else f"1 to {trained}, the number of trained steps.",
                remedy="choose --steps in that range.",
            )
        if not isinstance(schedule, DiscreteTable) or trained is None:
            return [float(t) for t in np.linspace(1, 0, steps + 1)]
        match self:
            case Spacing.LEADING:
                indices = np.arange(steps)[::-1] * (trained // steps)
            case Spacing.TRAILING:
                indices = np.round(np.arange(trained, 0, -trained / steps)[:steps]).astype(int) - 1
            case Spacing.LINSPACE:
                indices = np.round(np.linspace(0, trained - 1, steps))[::-1].astype(int)
        return [schedule.time(int(i)) for i in indices] + [0.0]


@dataclass(frozen=True)
class Sampler(ABC):
    """Turns noise into images. ``clip`` bounds every clean-image estimate to [-1, 1]."""

    steps: int = 20
    spacing: Spacing = Spacing.TRAILING
    clip: bool = True

    @abstractmethod
    def _step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, condition: Labels | None, fresh: Fresh, draw: int
    ) -> Tensor:
        """From time ``t`` to the earlier time ``s``."""

    def evaluations(self) -> int:
        """Network evaluations an image."""
        return self.steps

    def times(self, schedule: Schedule) -> list[float]:
        """The falling times that are visited, the last one 0."""
        return self.spacing.times(schedule, self.steps)

    def begin(self, start: Images, sigma: Tensor) -> Images:
        """Standard normal ``start`` at the noise level of the first time, ``sigma`` [n, 1, 1, 1]."""
        # A variance-exploding schedule starts at its own scale, every other one at 1.
        return start * sigma.clamp_min(1)

    def key(self) -> dict[str, Any]:
        """Plain values that identify the sampler."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"sampler": type(self).__name__, **{k: v.value if isinstance(v, Enum) else v for k, v in fields.items()}}

    def sample(self, denoiser: Denoiser, start: Images, condition: Labels | None, fresh: Fresh) -> Images:
        """Images in [-1, 1] from standard normal ``start`` [n, c, h, w]."""
        return self.solve(denoiser, start, condition, fresh).clamp(-1, 1)

    @torch.no_grad()
    def solve(self, denoiser: Denoiser, start: Images, condition: Labels | None, fresh: Fresh) -> Images:
        """The same without the last bounds, as latents need it (with ``clip`` false)."""
        times = self.times(denoiser.schedule)
        first = torch.full((len(start),), times[0], dtype=start.dtype, device=start.device)
        x = self.begin(start, denoiser.levels(first)[1])
        for draw, (t, s) in enumerate(pairwise(times), start=1):
            now, then = first.new_full((len(x),), t), first.new_full((len(x),), s)
            x = self._step(denoiser, x, now, then, condition, fresh, draw)
        return x

    def _clipped(self, mean: Tensor) -> Tensor:
        return mean.clamp(-1, 1) if self.clip else mean


@dataclass(frozen=True)
class DDIM(Sampler):
    """Song et al. 2021 (arXiv 2010.02502, equation 12); ``eta`` 0 is deterministic, 1 ancestral."""

    eta: float = 0.0

    def _step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, condition: Labels | None, fresh: Fresh, draw: int
    ) -> Tensor:
        mean, noise = denoiser.mean_and_noise(x_t, t, condition)
        alpha_t, sigma_t = denoiser.levels(t)
        alpha_s, sigma_s = denoiser.levels(s)
        if self.eta == 0:
            return alpha_s * self._clipped(mean) + sigma_s * noise
        step_variance = (sigma_t.square() - (alpha_t / alpha_s * sigma_s).square()).clamp_min(0)
        added = self.eta * sigma_s / sigma_t * step_variance.sqrt()
        kept = (sigma_s.square() - added.square()).clamp_min(0).sqrt()
        return alpha_s * self._clipped(mean) + kept * noise + added * fresh(draw)


@dataclass(frozen=True)
class DDPM(Sampler):
    """Ancestral sampling with the posterior variance (Ho et al. 2020, arXiv 2006.11239, equation 7)."""

    steps: int = 1000

    def _step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, condition: Labels | None, fresh: Fresh, draw: int
    ) -> Tensor:
        mean = self._clipped(denoiser.mean(x_t, t, condition))
        return posterior(denoiser, mean, x_t, t, s, fresh(draw))


def posterior(denoiser: Denoiser, mean: Tensor, x_t: Tensor, t: Tensor, s: Tensor, noise: Tensor) -> Tensor:
    """A draw of ``x_s`` given ``x_t`` and the clean image ``mean`` (Ho et al. 2020, equations 6 and 7)."""
    alpha_t, sigma_t = denoiser.levels(t)
    alpha_s, sigma_s = denoiser.levels(s)
    ratio = alpha_t / alpha_s
    gained = (sigma_t.square() - (ratio * sigma_s).square()).clamp_min(0)
    centre = (ratio * sigma_s.square() * x_t + alpha_s * gained * mean) / sigma_t.square()
    return centre + (gained.sqrt() * sigma_s / sigma_t) * noise


@dataclass(frozen=True)
class Heun(Sampler):
    """Second-order solution of the probability-flow ODE (Karras et al. 2022, arXiv 2206.00364, algorithm 1).

    In ``y = x / alpha`` and ``r = sigma / alpha`` the ODE is ``dy/dr = (y - E[x_0 | x_t]) / r``.
    Two evaluations a step, one in the last.
    """

    def evaluations(self) -> int:
        """Two a step but for the last one."""
        return 2 * self.steps - 1

    def _step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, condition: Labels | None, fresh: Fresh, draw: int
    ) -> Tensor:
        alpha_t, sigma_t = denoiser.levels(t)
        alpha_s, sigma_s = denoiser.levels(s)
        mean = self._clipped(denoiser.mean(x_t, t, condition))
        slope = (x_t - alpha_t * mean) / sigma_t
        euler = alpha_s * mean + sigma_s * slope
        if float(sigma_s[0]) == 0 or float(alpha_t[0]) == 0:
            return euler
        ahead = (euler - alpha_s * self._clipped(denoiser.mean(euler, s, condition))) / sigma_s
        return alpha_s * (x_t / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) * (slope + ahead) / 2)


SAMPLERS: dict[str, type[Sampler]] = {kind.__name__.lower(): kind for kind in (DDIM, DDPM, Heun)}
"""Samplers by the name that a command line or a record gives them."""
