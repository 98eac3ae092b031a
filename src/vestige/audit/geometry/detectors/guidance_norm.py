"""Length of the guidance vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vestige.audit.geometry.detectors.detector import Detector, Values, told_and_untold
from vestige.models.denoiser import Denoiser, Images, Labels, Times


@dataclass(frozen=True)
class GuidanceNorm(Detector):
    """``|eps_hat(x_t, t, c) - eps_hat(x_t, t, null)|_2``, image by image.

    At time 1 the point plays no part and the score is one of the condition: the first step of sampling. The public
    code of the token attribution takes the norm over the whole batch; here no image sees another.
    """

    claim: ClassVar[str] = "A condition that the model knows by heart pulls hard from the first step on."
    source: ClassVar[str] = "Wen et al. 2024, Detecting, Explaining, and Mitigating Memorization in Diffusion Models"

    time: float = 1.0

    @property
    def evaluations_per_draw(self) -> int:
        """Two, with and without the condition."""
        return 2

    def value(
        self, denoiser: Denoiser, points: Images, noise: Images, t: Times, condition: Labels | None = None
    ) -> Values:
        """The length, summed over all pixels of each image."""
        given, without = told_and_untold(denoiser, denoiser.noised(points, noise, t), t, condition)
        return (given - without).flatten(1).norm(dim=1)
