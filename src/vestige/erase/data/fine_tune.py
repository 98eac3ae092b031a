"""Fine-tuning on the retained images alone: the baseline that hopes that the rest is forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import nn

from vestige.erase.driver import Driver, draw_batch, noise_loss
from vestige.erase.eraser import Eraser, Request
from vestige.execute import Context
from vestige.models.denoiser import Denoiser


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

    steps: int = 200
    batch_size: int = 24
    learning_rate: float = 2.2e-4

    def train(self, base: Denoiser, module: nn.Module, request: Request, context: Context) -> dict[str, float]:
        """Run the loop; see the class."""
        key = {"eraser": "FineTune", "base": base.digest, "request": request.digest, "seed": context.seed}
        key |= self.settings()
        driver = Driver(base, module, context, key, self.steps, self.batch_size, self.learning_rate)

        def step(index: int, rng: np.random.Generator) -> int:
            kept = draw_batch(base, request.retain, rng, self.batch_size, request.retain_copies)
            noise_loss(driver.student, kept, kept.noise).backward()
            return len(kept.x_t)

        return driver.run(step, f"FineTune, {len(request.retain)} images")
