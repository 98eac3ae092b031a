"""Curvature of the log-density along its own gradient, from two looks at the score."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from vestige.audit.geometry.detectors.detector import Detector, Values, told_and_untold
from vestige.errors import InvalidInput
from vestige.models.denoiser import Denoiser, Images, Labels, Times


class Of(str, Enum):
    """Whose change is looked at."""

    SCORE = "score"
    """The score itself; the condition is optional."""
    GUIDANCE = "guidance"
    """The guidance vector: the sharpness that the condition adds."""


@dataclass(frozen=True)
class Sharpness(Detector):
    """``sigma^6 |s(x_t + d s(x_t)) - s(x_t)|^2 / d^2``, the finite difference of ``sigma^6 |H s|^2``, H the Hessian.

    s is the score, or the guidance vector ``s_c - s_null`` with H then the difference of two Hessians. The factor
    makes it free of units: with ``v = -sigma s`` and ``d = step sigma^2`` it is ``|v(x_t - step sigma v) - v|^2 /
    step^2``. Where the score is linear (a Gaussian) no ``step`` makes it inexact.

    Parameters
    ----------
    of : score or guidance vector.
    step : length of the step, in noise levels a unit of the noise estimate; above 0.
    """

    claim: ClassVar[str] = "A memorized image is a sharp peak of the log-density, before any image is sampled."
    source: ClassVar[str] = "Jeon, Kim and No 2025, arXiv 2412.04140"

    time: float = 1.0
    of: Of = Of.GUIDANCE
    step: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.step > 0:
            raise InvalidInput(f"The step is {self.step:g}.", expected="above 0.", remedy="leave it at 0.01.")

    @property
    def evaluations_per_draw(self) -> int:
        """Two of the score, four of the guidance vector."""
        return 2 if self.of is Of.SCORE else 4

    def value(
        self, denoiser: Denoiser, points: Images, noise: Images, t: Times, condition: Labels | None = None
    ) -> Values:
        """The squared length of the change, summed over all pixels of each image."""
        x_t, sigma = denoiser.noised(points, noise, t), denoiser.levels(t)[1]
        here = self._vector(denoiser, x_t, t, condition)
        there = self._vector(denoiser, x_t - self.step * sigma * here, t, condition)
        return ((there - here) / self.step).flatten(1).square().sum(1)

    def _vector(self, denoiser: Denoiser, x_t: Images, t: Times, condition: Labels | None) -> Images:
        if self.of is Of.SCORE:
            return denoiser.noise(x_t, t, condition)
        given, without = told_and_untold(denoiser, x_t, t, condition)
        return given - without
