"""Length of the guidance vector at the first step of sampling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.audit.geometry.detectors.detector import Values, told_and_untold
from vestige.audit.prompts.detector import PromptDetector, start
from vestige.models.denoiser import Denoiser, Images, Labels


@dataclass(frozen=True)
class FirstGuidanceNorm(PromptDetector):
    """``|eps_hat(x_1, c) - eps_hat(x_1, null)|_2`` at time 1: nothing has to be sampled."""

    claim: ClassVar[str] = "A prompt known by heart pulls hard from the first step on."
    source: ClassVar[str] = "Wen et al. 2024, arXiv 2407.21720, first-step form"

    @property
    def forwards_per_draw(self) -> int:
        """Two, with and without the condition."""
        return 2

    def value(self, denoiser: Denoiser, noise: Images, condition: Labels) -> Values:
        """The length, summed over all pixels of each image."""
        told, untold = told_and_untold(denoiser, *start(denoiser, noise), condition)
        return (told - untold).flatten(1).norm(dim=1)
