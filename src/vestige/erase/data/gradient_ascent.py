"""Gradient ascent on the forgotten images (NegGrad), bounded: the baseline that looks at nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from vestige.erase.data.sides import Sides
from vestige.erase.driver import Batch, Driver, error_scale, row_losses
from vestige.erase.eraser import Eraser
from vestige.erase.request import Request
from vestige.errors import InvalidInput
from vestige.models.denoiser import Denoiser


@dataclass(frozen=True)
class GradientAscent(Eraser):
    """Ascend ``E_forget min(||eps - eps_hat(x_t, c)||^2, ceiling)``, the error a pixel of each noisy image.

    Ascent on the squared error has no end of its own. Here a noisy image whose error has reached the ceiling
    exerts no force any more; at 1, the default, that is the error of a network that answers 0 and so
    knows nothing of the noise. The retained images are not looked at. A step costs three forward-equivalents.

    Parameters
    ----------
    steps, batch_size, learning_rate : of Adam.
    ceiling : mean squared error of the predicted noise, a pixel, beyond which an image is left alone.

    Source: the negative-gradient baseline of Golatkar et al. 2020, arXiv 1911.04933; the ceiling is ours.
    """

    claim: ClassVar[str] = "ascends the loss of the forgotten images up to a ceiling; a baseline"
    source: ClassVar[str] = "Golatkar et al. 2020, arXiv 1911.04933"

    steps: int = 30
    learning_rate: float = 2e-5
    ceiling: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.ceiling) and self.ceiling > 0):
            raise InvalidInput(
                f"ceiling={self.ceiling}.", expected="a positive, finite error.", remedy="change the option."
            )

    def train(self, driver: Driver, request: Request) -> dict[str, float]:
        """Run the loop; see the class."""
        sides = Sides(driver, request)

        def step(index: int, rng: np.random.Generator) -> None:
            gone = sides.gone(rng)
            driver.follow(driver.gradient(gone, lambda part: -bounded_losses(driver.student, part, self.ceiling)))

        return driver.run(step, f"GradientAscent, {len(request.forget)} images")


def bounded_losses(student: Denoiser, batch: Batch, ceiling: float) -> Tensor:
    """Squared error of the predicted noise of each image, a pixel [n], images beyond the ceiling counted as constants.

    A network that predicts the clean image is compared there, as in :func:`vestige.erase.driver.row_losses`; its
    ceiling is still that of the noise.
    """
    losses = row_losses(student, batch)
    below = losses.detach() < ceiling * error_scale(student, batch.t).flatten()
    return losses.where(below, losses.detach())
