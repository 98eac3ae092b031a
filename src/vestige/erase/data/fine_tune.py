"""Fine-tuning on the retained images alone: the baseline that hopes that the rest is forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from vestige.erase.data.sides import Sides
from vestige.erase.driver import Driver, row_losses
from vestige.erase.eraser import Eraser
from vestige.erase.request import Request


@dataclass(frozen=True)
class FineTune(Eraser):
    """Descend ``L_r = E_retain ||eps - eps_hat(x_t, c)||^2`` and never show the forgotten images again.

    What is forgotten is forgotten by interference only, so this is the least that a method must beat. Retained rows
    are drawn as often as they stand in the training data. A step costs three forward-equivalents.

    Parameters
    ----------
    steps, batch_size, learning_rate : of Adam.

    Source: the fine-tuning baseline of Golatkar et al. 2020, arXiv 1911.04933, with the loss of Ho et al. 2020,
    arXiv 2006.11239, equation 14.
    """

    claim: ClassVar[str] = "trains on with the retained images alone; a baseline"
    source: ClassVar[str] = "Golatkar et al. 2020, arXiv 1911.04933"

    def train(self, driver: Driver, request: Request) -> dict[str, float]:
        """Run the loop; see the class."""
        sides = Sides(driver, request)

        def step(index: int, rng: np.random.Generator) -> None:
            driver.follow(driver.gradient(sides.kept(rng), partial(row_losses, driver.student)))

        return driver.run(step, f"FineTune, {len(request.retain)} images")
