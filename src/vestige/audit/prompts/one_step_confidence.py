"""How far a single step of sampling denoises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.audit.geometry.detectors.detector import Values, told_and_untold
from vestige.audit.prompts.detector import PromptDetector, start
from vestige.models.denoiser import Denoiser, Images, Labels


@dataclass(frozen=True)
class OneStepConfidence(PromptDetector):
    """``mean (y - m)^2 / r^2``, the way from noise y straight to the guided clean estimate m.

    Here ``y = x_1 / alpha`` and ``r = sigma / alpha``. In terms of the guided
    noise estimate it is its mean square, so that no schedule divides by zero.

    Parameters
    ----------
    guidance : strength of the guidance.
    """

    claim: ClassVar[str] = "An image known by heart is there after one step."
    source: ClassVar[str] = "Webster 2023, arXiv 2305.08694, with access to the denoiser"

    guidance: float = 7.5

    @property
    def forwards_per_draw(self) -> int:
        """Two, with and without the condition."""
        return 2

    def value(self, denoiser: Denoiser, noise: Images, condition: Labels) -> Values:
        """The mean square over all pixels of each image."""
        told, untold = told_and_untold(denoiser, *start(denoiser, noise), condition)
        return (untold + self.guidance * (told - untold)).flatten(1).square().mean(1)
