"""Length of the guidance vector at high noise together with its direction at low noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch.nn.functional import cosine_similarity

from vestige.audit.geometry.detectors.detector import Values, told_and_untold
from vestige.audit.prompts.detector import PromptDetector, at, start
from vestige.models.denoiser import Denoiser, Images, Labels


@dataclass(frozen=True)
class Anisotropy(PromptDetector):
    """``|g_1|_2 / sqrt(D) + weight cos(g_low, -eps_hat(x, null))`` with ``g = eps_hat(x, null) - eps_hat(x, c)``.

    ``g`` is the guidance vector as a score, up to its positive factor, ``g_1`` that at time 1 and ``g_low`` that at a
    low time, at which the same pure noise ``x`` is put to the network as if it were nearly clean. D is the number of
    pixels. The paper tunes the weight of either part to each model; here the length is taken a pixel and the weight
    is 1 unless told otherwise, so nothing is fitted.

    Parameters
    ----------
    low : the low time; rounded to the nearest that the network was trained at.
    weight : of the cosine.
    """

    claim: ClassVar[str] = "Where noise is low, the pull of a prompt known by heart points along the model's own score."
    source: ClassVar[str] = "Asthana and Belagiannis 2026, arXiv 2601.20642"

    low: float = 0.02
    weight: float = 1.0

    @property
    def forwards_per_draw(self) -> int:
        """Two at either time."""
        return 4

    def value(self, denoiser: Denoiser, noise: Images, condition: Labels) -> Values:
        """The sum of both parts for each image."""
        x, t = start(denoiser, noise)
        told, untold = told_and_untold(denoiser, x, t, condition)
        length = (told - untold).flatten(1).norm(dim=1) / math.sqrt(noise[0].numel())
        told, untold = told_and_untold(denoiser, x, at(denoiser, self.low, noise), condition)
        return length + self.weight * cosine_similarity((told - untold).flatten(1), untold.flatten(1), dim=1)
