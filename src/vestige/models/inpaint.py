"""Inpainting with an unconditional model: the known pixels are put back, noised, at every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from vestige.errors import InvalidInput
from vestige.models.denoiser import Denoiser, Images, Labels
from vestige.models.sampler import Spacing

Draw = Callable[[], Tensor]
"""Gives the next standard normal noise, shaped like the batch; each image draws from a stream of its own."""


@dataclass(frozen=True)
class Inpaint:
    """Completes images whose ``known`` pixels are given.

    At every step from time t to the earlier time s, the known pixels of ``x_t`` are
    ``alpha_t x + sigma_t eps`` with fresh noise; the rest takes a DDIM step of the whole
    image. Then the step may be repeated: noise is added to lead the result from s back to t,
    so that both parts grow together, ``resample`` times in all.

    Parameters
    ----------
    steps : denoising steps.
    resample : how often each is made; 1 is plain replacement.
    spacing, clip : as for a sampler.

    Source: Lugmayr et al. 2022 (RePaint), arXiv 2201.09865, algorithm 1, with DDIM steps
    (Song et al. 2021, arXiv 2010.02502) in place of ancestral ones; the last step is repeated as well.

    Raises
    ------
    InvalidInput : fewer than one step or repetition.
    """

    steps: int = 20
    resample: int = 1
    spacing: Spacing = Spacing.TRAILING
    clip: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.resample < 1:
            raise InvalidInput(
                f"steps={self.steps}, resample={self.resample}.", expected="at least 1 each.", remedy="raise it."
            )

    def evaluations(self) -> int:
        """Network evaluations a completion."""
        return self.steps * self.resample

    def key(self) -> dict[str, Any]:
        """Plain values that identify the procedure."""
        fields = {"steps": self.steps, "resample": self.resample, "spacing": self.spacing.value, "clip": self.clip}
        return {"inpaint": "replace", **fields}

    @torch.no_grad()
    def complete(
        self,
        denoiser: Denoiser,
        images: Images,
        known: Bool[Tensor, "channels height width"],
        condition: Labels | None,
        draw: Draw,
    ) -> Images:
        """Images [n, c, h, w] in [-1, 1] that equal ``images`` where ``known``; the other pixels are never read."""
        times = self.spacing.times(denoiser.schedule, self.steps)
        levels = images.new_tensor(times)
        x = draw() * denoiser.levels(levels[:1])[1].clamp_min(1)
        for place, (t, s) in enumerate(pairwise(times)):
            now, then = images.new_full((len(x),), t), images.new_full((len(x),), s)
            for repeat in range(self.resample):
                x = torch.where(known, denoiser.noised(images, draw(), now), x)
                earlier = self._step(denoiser, x, now, then, condition)
                again = repeat < self.resample - 1
                x = self._back(denoiser, earlier, levels[place : place + 2], draw()) if again else earlier
        return torch.where(known, images, x.clamp(-1, 1))

    def _step(self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, condition: Labels | None) -> Tensor:
        mean, noise = denoiser.mean_and_noise(x_t, t, condition)
        alpha, sigma = denoiser.levels(s)
        return alpha * (mean.clamp(-1, 1) if self.clip else mean) + sigma * noise

    def _back(self, denoiser: Denoiser, x_s: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """From the earlier time to the later: ``q(x_t | x_s)``, where ``times`` holds t and s."""
        alpha, sigma = denoiser.levels(times)
        ratio = alpha[:1] / alpha[1:]
        return ratio * x_s + (sigma[:1].square() - (ratio * sigma[1:]).square()).clamp_min(0).sqrt() * noise
