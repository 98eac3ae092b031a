"""Noise inversion: carry an image to noise and back; what the model knows, it draws again more exactly."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch

from vestige.data.images import ImageSet
from vestige.erase.recover.images import by_model, compared
from vestige.erase.recover.measure import Floats, check, labels_of
from vestige.erase.recover.recovery import Outcome, Recovery, Target
from vestige.execute import Context
from vestige.models.denoiser import Denoiser

_LEAST = 1e-4
"""Rms error below which float32 and 8-bit pixels no longer tell."""


@dataclass(frozen=True)
class NoiseInversion(Recovery):
    """Invert forgotten images to noise by deterministic DDIM, sample back, and compare with unseen images.

    From time s to the later t: ``x_t = alpha_t (x_s - sigma_s e) / alpha_s + sigma_t e`` with ``e = eps_hat(x_s, s)``
    (at the first step at t, since no noise is left at time 0); the way back is the same formula with the times in
    reverse. Any model returns an image roughly. The score is the negative log of the rms error (pixels in [0, 1]),
    less that of the model that never saw the image where there is one; the advantage is ``2 AUC - 1`` of forgotten
    against unseen images.

    Parameters
    ----------
    steps : of either way.
    depth : time up to which images are inverted, in (0, 1).
    rows : most images a side.
    """

    claim: ClassVar[str] = "carries images to noise and back and sees whether forgotten ones return more exactly"
    source: ClassVar[str] = "Song et al. 2021, arXiv 2010.02502; Pham et al. 2024, arXiv 2308.01508"

    steps: int = 20
    depth: float = 0.8
    rows: int = 100

    def __post_init__(self) -> None:
        check(times=(self.depth,), steps=self.steps, rows=self.rows)

    def attack(self, target: Target, context: Context) -> Outcome:
        """Errors of both sides under every model, then their comparison."""
        sides = target.sides(self.rows, context.seed)
        errors = by_model(self, target, sides, context, self._there_and_back)
        return compared(
            errors,
            target,
            attack="noise inversion",
            effort=f"{self.steps} steps to time {self.depth:g} and back, {len(sides[0])} images",
            budget=len(errors) * sum(map(len, sides)) * 2 * self.steps,
            key="noise_inversion",
            quantity="rms error of the reconstruction",
        )

    @torch.no_grad()
    def _there_and_back(self, model: Denoiser, images: ImageSet) -> Floats:
        """Rms error [n] of images that went to noise and back, pixels in [0, 1]."""
        device, clean = model.device, images.floats().to(model.device)
        labels, x = labels_of(model, images), clean
        times = [0.0, *np.linspace(self.depth / self.steps, self.depth, self.steps).tolist()]

        def moved(x: torch.Tensor, at: float, source: float, goal: float) -> torch.Tensor:
            now, then, asked = (torch.full((len(x),), t, device=device) for t in (source, goal, at))
            noise = model.noise(x, asked, labels)
            (alpha_s, sigma_s), (alpha_t, sigma_t) = model.levels(now), model.levels(then)
            return alpha_t * (x - sigma_s * noise) / alpha_s + sigma_t * noise

        for s, t in pairwise(times):
            x = moved(x, max(s, times[1]), s, t)
        for t, s in pairwise(times[::-1]):
            x = moved(x, t, t, s)
        error = (x.clamp(-1, 1) - clean).square().flatten(1).mean(1).sqrt() / 2
        return np.maximum(error.double().cpu().numpy(), _LEAST)
