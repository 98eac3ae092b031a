"""Curvature of the guidance along its own direction, before anything is sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from vestige.audit.geometry.detectors.detector import Values
from vestige.audit.geometry.detectors.sharpness import Of, Sharpness
from vestige.audit.prompts.detector import PromptDetector, start
from vestige.models.denoiser import Denoiser, Images, Labels


@dataclass(frozen=True)
class PromptSharpness(PromptDetector):
    """``sigma^6 |(H_c - H_null) (s_c - s_null)|^2`` at time 1, by :class:`Sharpness` with its finite difference.

    Parameters
    ----------
    step : of the difference, in noise levels a unit of the noise estimate.
    """

    claim: ClassVar[str] = "A prompt known by heart sharpens the log-density before any image is sampled."
    source: ClassVar[str] = "Jeon, Kim and No 2025, arXiv 2412.04140"

    step: float = 0.01

    @property
    def forwards_per_draw(self) -> int:
        """Two at either end of the step."""
        return 4

    def value(self, denoiser: Denoiser, noise: Images, condition: Labels) -> Values:
        """The squared length of the change, summed over all pixels of each image."""
        inner = Sharpness(of=Of.GUIDANCE, step=self.step)
        return inner.value(denoiser, torch.zeros_like(noise), noise, start(denoiser, noise)[1], condition)
