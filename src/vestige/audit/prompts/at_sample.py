"""Detectors of images, asked about what the model draws for a prompt."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch

from vestige.audit.geometry.detectors.detector import Detector, Values
from vestige.audit.prompts.detector import PromptDetector, at
from vestige.audit.prompts.path import sampled
from vestige.models.denoiser import Denoiser, Images, Labels


@dataclass(frozen=True)
class AtSample(PromptDetector):
    """Draws an image for the prompt, then asks a detector of images about it, the prompt being its condition.

    Parameters
    ----------
    steps, guidance : of the deterministic guided sampling.
    time : noise level at which the detector looks, 0 clean .. 1 noise.
    """

    draws: int = 2
    steps: int = 10
    guidance: float = 7.5
    time: float = 0.1

    @property
    @abstractmethod
    def inner(self) -> Detector:
        """The detector of images."""

    @property
    def forwards_per_draw(self) -> int:
        """Two a step of sampling, and those of the detector."""
        return 2 * self.steps + self.inner.evaluations_per_draw

    def value(self, denoiser: Denoiser, noise: Images, condition: Labels) -> Values:
        """The detector's value at the sample, noised anew with the start's noise turned by one row of pixels."""
        drawn = sampled(denoiser, noise, condition, steps=self.steps, guidance=self.guidance)
        # The sample is a function of the start; shifted, the noise is as good as independent of it.
        fresh = torch.roll(noise, 1, dims=-2)
        return self.inner.value(denoiser, drawn, fresh, at(denoiser, self.time, noise), condition)
