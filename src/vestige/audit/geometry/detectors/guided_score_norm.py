"""Length of the guided score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.audit.geometry.detectors.detector import Detector, Values, told_and_untold
from vestige.models.denoiser import Denoiser, Images, Labels, Times


@dataclass(frozen=True)
class GuidedScoreNorm(Detector):
    """``|eps_null + scale (eps_c - eps_null)|_2``, the length of the classifier-free guided noise estimate.

    Parameters
    ----------
    scale : strength of the guidance that the model is sampled with.
    """

    claim: ClassVar[str] = "Guidance towards a memorized image makes the score long."
    source: ClassVar[str] = "Ross et al. 2024, arXiv 2411.00113, mitigation at inference time"

    time: float = 1.0
    scale: float = 7.5

    @property
    def evaluations_per_draw(self) -> int:
        """Two, with and without the condition."""
        return 2

    def value(
        self, denoiser: Denoiser, points: Images, noise: Images, t: Times, condition: Labels | None = None
    ) -> Values:
        """The length, summed over all pixels of each image."""
        given, without = told_and_untold(denoiser, denoiser.noised(points, noise, t), t, condition)
        return (without + self.scale * (given - without)).flatten(1).norm(dim=1)
