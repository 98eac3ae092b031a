"""SFR-on (Huang et al. 2024, arXiv 2409.19732): salient forgetting steps between steps that repair."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vestige.erase.data.sides import Sides
from vestige.erase.driver import Batch, Driver, row_losses
from vestige.erase.eraser import Eraser
from vestige.erase.request import Request
from vestige.errors import InvalidInput, NothingChanged
from vestige.randomness import Stream, generator

TINY = 1e-15
"""Added to both Fisher informations, so that a weight that neither side uses has ratio 1."""


@dataclass(frozen=True)
class SFRon(Eraser):
    """Alternate a masked ascent on the forgotten images with a descent on the retained ones.

    - The forget step ascends ``alpha(step) mean_i w_i l_i`` with the error ``l_i`` of each noisy image and the
      adaptive weights ``w_i = l_i^-p / mean_j l_j^-p``, held constant: what is still remembered well counts most.
      ``alpha`` falls to 0 along a cosine. Only weights with ``F_f / F_r >= threshold`` move, where ``F`` is the
      diagonal Fisher information on either side, estimated at the base by squared batch gradients.
    - The retain step descends ``E_retain ||eps - eps_hat||^2`` with all weights. The last step is one of these.

    Both share the optimizer. A step costs three forward-equivalents; the mask costs six a batch, which the cost
    states apart and counts in.

    Parameters
    ----------
    steps : of Adam, forgetting and retaining by turns, retaining last.
    batch_size, learning_rate : of either kind.
    alpha : weight of the forget loss at the first step.
    power : p of the adaptive weights; 0 weighs all alike.
    threshold : least ratio of Fisher informations of a weight that forgetting may move; 0 lets all move.
    fisher_batches : batches a side that the Fisher informations are estimated from.

    Source: arXiv 2409.19732, sections 3 and 4, and the authors' code (DDPM, adaptive ascent), which is followed in the
    Fisher estimate and in the normalization of the weights.
    """

    claim: ClassVar[str] = "ascends on forgotten images in salient weights, and repairs on retained ones, by turns"
    source: ClassVar[str] = "Huang et al. 2024, arXiv 2409.19732"

    learning_rate: float = 1e-4
    alpha: float = 1.0
    power: float = 0.5
    threshold: float = 1.0
    fisher_batches: int = 8

    def __post_init__(self) -> None:
        numbers = (self.alpha, self.power, self.threshold)
        if not all(math.isfinite(n) and n >= 0 for n in numbers) or self.alpha == 0 or self.fisher_batches < 1:
            raise InvalidInput(
                f"alpha={self.alpha}, power={self.power}, threshold={self.threshold}, "
                f"fisher_batches={self.fisher_batches}.",
                expected="a positive alpha, a power and a threshold of at least 0, and at least one batch.",
                remedy="change the option.",
            )

    def train(self, driver: Driver, request: Request) -> dict[str, float]:
        """Run the loop; see the class."""
        sides = Sides(driver, request)
        mask, spent = self._mask(driver, sides)
        weigh = partial(adaptive, power=self.power)

        def step(index: int, rng: np.random.Generator) -> None:
            if (self.steps - 1 - index) % 2 == 0:
                driver.follow(driver.gradient(sides.kept(rng), partial(row_losses, driver.student)))
                return
            alpha = self.alpha * (1 + math.cos(math.pi * index / self.steps)) / 2
            found = driver.gradient(sides.gone(rng), partial(row_losses, driver.student), weigh=weigh)
            driver.follow([g * (-alpha * salient) for g, salient in zip(found, mask, strict=True)])

        cost = driver.run(step, f"SFRon, {len(request.forget)} images")
        return {
            **cost,
            "forward_equivalents": cost["forward_equivalents"] + spent,
            "mask_forward_equivalents": spent,
            "mask_share": sum(int(m.sum()) for m in mask) / sum(m.numel() for m in mask),
        }

    def _mask(self, driver: Driver, sides: Sides) -> tuple[list[Tensor], float]:
        """Weights that matter more to the forgotten images, and the forward-equivalents that it took to tell."""
        if self.threshold == 0:
            return [torch.ones_like(p, dtype=torch.bool) for p in driver.parameters], 0.0

        def information(batch: Callable[[np.random.Generator], Batch], draw: int) -> list[Tensor]:
            total = [torch.zeros_like(p) for p in driver.parameters]
            for index in range(self.fisher_batches):
                rng = generator(driver.context.seed, Stream.ERASE, index, draw)
                found = driver.gradient(batch(rng), partial(row_losses, driver.student))
                for sums, gradient in zip(total, found, strict=True):
                    sums.addcmul_(gradient, gradient, value=1 / self.fisher_batches)
            return total

        # The steps draw at 0; these are draws of their own.
        mask = salient(information(sides.gone, 1), information(sides.kept, 2), self.threshold)
        if not any(bool(m.any()) for m in mask):
            raise NothingChanged(
                f"No weight is {self.threshold:g} times as important to the forgotten images as to the retained ones.",
                expected="weights above the threshold.",
                remedy="lower --set threshold.",
            )
        return mask, 6.0 * self.fisher_batches * self.batch_size


def salient(forget: list[Tensor], retain: list[Tensor], threshold: float) -> list[Tensor]:
    """Where the Fisher information on the forgotten side is at least ``threshold`` times the other's."""
    return [(f + TINY) / (r + TINY) >= threshold for f, r in zip(forget, retain, strict=True)]


def adaptive(losses: Tensor, power: float) -> Tensor:
    """Weights of losses, ``losses^-power``; the mean that they weigh is divided by their sum."""
    return losses.clamp_min(1e-8).pow(-power)
