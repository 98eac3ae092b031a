"""Boost-and-Skip: start a diffusion sampler from too much noise, and a little late."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vestige.errors import InvalidInput
from vestige.models.denoiser import Denoiser, Images, Labels
from vestige.models.sampler import Fresh, Sampler, posterior
from vestige.models.schedule import Schedule


@dataclass(frozen=True)
class BoostAndSkip(Sampler):
    """Ancestral sampling that starts at ``x ~ N(0, gamma^2 I)`` and at the time that follows the first ``skip`` steps.

    The noise of later steps carries the boosted start back to images, low-density ones among them: a deterministic
    sampler would keep the excess, so the steps are those of :class:`~vestige.models.sampler.DDPM`. It needs no gradient
    and costs ``steps - skip`` evaluations. Source: Um, Kim and Ye 2025, arXiv 2502.06516 (gamma 4 for CelebA, 2.5 for
    ImageNet-64, skip 3 of 250 steps).

    Parameters
    ----------
    gamma : the boost, at least 1.
    skip : steps left out at the start.

    Raises
    ------
    InvalidInput : a setting is outside its range.
    """

    steps: int = 250
    gamma: float = 2.5
    skip: int = 3

    def __post_init__(self) -> None:
        if self.gamma < 1 or not 0 <= self.skip < self.steps:
            raise InvalidInput(
                f"gamma={self.gamma:g}, skip={self.skip} of {self.steps} steps.",
                expected="a gamma of at least 1, fewer steps skipped than there are.",
                remedy="change the setting.",
            )

    def evaluations(self) -> int:
        """One for every step that is left."""
        return self.steps - self.skip

    def times(self, schedule: Schedule) -> list[float]:
        """Without the first ``skip``."""
        return self.spacing.times(schedule, self.steps)[self.skip :]

    def begin(self, start: Images, sigma: Tensor) -> Images:
        """Boosted; a variance-exploding schedule starts at its own scale."""
        return self.gamma * start * sigma.clamp_min(1)

    def _step(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, s: Tensor, condition: Labels | None, fresh: Fresh, draw: int
    ) -> Tensor:
        mean = self._clipped(denoiser.mean(x_t, t, condition))
        return posterior(denoiser, mean, x_t, t, s, fresh(draw))
