"""Length of the guidance vector, averaged over the steps of sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from vestige.audit.geometry.detectors.detector import Values
from vestige.audit.prompts.detector import PromptDetector
from vestige.audit.prompts.path import guided_path
from vestige.models.denoiser import Denoiser, Images, Labels


@dataclass(frozen=True)
class MeanGuidanceNorm(PromptDetector):
    """``d = 1/T sum_t |eps_hat(x_t, c) - eps_hat(x_t, null)|_2`` along guided sampling.

    Costs nothing beside the sampling itself, which knows both estimates already.

    Parameters
    ----------
    steps : T, of deterministic guided sampling; 50 in the paper.
    guidance : strength of the guidance.
    """

    claim: ClassVar[str] = "A prompt known by heart pulls hard on every step of sampling."
    source: ClassVar[str] = "Wen et al. 2024, arXiv 2407.21720"

    steps: int = 20
    guidance: float = 7.5

    @property
    def forwards_per_draw(self) -> int:
        """Two a step."""
        return 2 * self.steps

    def value(self, denoiser: Denoiser, noise: Images, condition: Labels) -> Values:
        """The mean length, each summed over all pixels of an image."""
        path = guided_path(denoiser, noise, condition, steps=self.steps, guidance=self.guidance)
        return torch.stack([(step.told - step.untold).flatten(1).norm(dim=1) for step in path]).mean(0)
