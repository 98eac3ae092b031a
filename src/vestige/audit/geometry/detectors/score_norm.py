"""Length of the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.audit.geometry.detectors.detector import Detector, Values
from vestige.models.denoiser import Denoiser, Images, Labels, Times


@dataclass(frozen=True)
class ScoreNorm(Detector):
    """``|eps_hat(x_t, t, c)|_2``, the length of the noise estimate, which is sigma times that of the score.

    Close to a manifold of dimension d in D dimensions it is about sqrt(D - d), so a memorized image has the largest.
    """

    claim: ClassVar[str] = "The score is longest where the model is sharpest."
    source: ClassVar[str] = "Ross et al. 2024, arXiv 2411.00113; the norm without guidance of Wen et al. 2024"

    time: float = 0.1

    @property
    def evaluations_per_draw(self) -> int:
        """One."""
        return 1

    def value(
        self, denoiser: Denoiser, points: Images, noise: Images, t: Times, condition: Labels | None = None
    ) -> Values:
        """The length, summed over all pixels of each image."""
        return denoiser.noise(denoiser.noised(points, noise, t), t, condition).flatten(1).norm(dim=1)
