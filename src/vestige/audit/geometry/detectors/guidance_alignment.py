"""Angle between the guidance vector and the score without a condition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.nn.functional import cosine_similarity

from vestige.audit.geometry.detectors.detector import Detector, Values, told_and_untold
from vestige.models.denoiser import Denoiser, Images, Labels, Times


@dataclass(frozen=True)
class GuidanceAlignment(Detector):
    """``cos(s_c - s_null, s_null)`` in [-1, 1], 0 where either vanishes.

    Meant for low noise, where a length no longer tells: at a memorized image the condition pulls to where the model
    goes without it. The paper puts pure noise to the network under a low time and adds a norm at a high one; here the
    point is noised to the level that is told, and :class:`GuidanceNorm` stays a detector of its own.
    """

    claim: ClassVar[str] = "At low noise a memorized image is where the condition and the model alone agree."
    source: ClassVar[str] = "Asthana and Belagiannis 2026, arXiv 2601.20642"

    time: float = 0.1

    @property
    def evaluations_per_draw(self) -> int:
        """Two, with and without the condition."""
        return 2

    def value(
        self, denoiser: Denoiser, points: Images, noise: Images, t: Times, condition: Labels | None = None
    ) -> Values:
        """The cosine over all pixels of each image."""
        given, without = told_and_untold(denoiser, denoiser.noised(points, noise, t), t, condition)
        return cosine_similarity((given - without).flatten(1), without.flatten(1), dim=1)
