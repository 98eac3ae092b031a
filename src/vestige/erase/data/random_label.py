"""Random labels: relearn the forgotten images under answers that belong to something else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from vestige.erase.data.balance import Weights, descend
from vestige.erase.data.saliency import Mask
from vestige.erase.data.sides import Sides
from vestige.erase.data.teacher import Target, Teacher
from vestige.erase.driver import Driver, row_losses
from vestige.erase.eraser import Eraser
from vestige.erase.request import Request
from vestige.errors import InvalidInput


def relearn(
    driver: Driver, request: Request, target: Target, retain_weight: float, mask: Mask | None = None
) -> dict[str, float]:
    """Descend ``L_f + alpha L_r`` with the weights of a mask, or all; returns what the steps cost."""
    teacher, sides = Teacher.of(target, driver.base, request), Sides(driver, request)
    fixed = None if mask is None else [~free for free in mask.unpacked(driver.base.device)]

    def step(index: int, rng: np.random.Generator) -> None:
        kept, gone = sides.kept(rng), sides.taught(index, rng, teacher)
        g_r = driver.gradient(kept, partial(row_losses, driver.student))
        g_f = driver.gradient(gone, partial(row_losses, driver.student))
        if fixed is not None:
            # Adam leaves a weight alone, to the bit, if every gradient it saw was 0; infinity times 0 would not be.
            g_r, g_f = (
                [g.masked_fill(still, 0.0) for g, still in zip(side, fixed, strict=True)] for side in (g_r, g_f)
            )
        descend(driver.parameters, g_r, g_f, Weights(retain_weight, 1.0))

    label = "Random labels" if mask is None else "SalUn"
    return driver.run(step, f"{label}, {len(request.forget)} images")


def check_weight(name: str, value: float) -> None:
    """Raise InvalidInput unless a loss's weight is finite and not negative."""
    if not (math.isfinite(value) and value >= 0):
        raise InvalidInput(
            f"{name}={value}.", expected="a finite number that is not negative.", remedy="change the option."
        )


@dataclass(frozen=True)
class RandomLabel(Eraser):
    """Teach the network other answers on forgotten images, its own answers on retained ones.

    ``L = E_forget ||eps_f - eps_hat(x_t, c)||^2 + alpha E_retain ||eps - eps_hat(x_t, c)||^2``.

    ``eps_f`` is the frozen base's answer under another class, drawn for each sample among
    the classes of retained images, or uniform noise in [0, 1] where there are no labels.
    A step costs seven forward-equivalents, six with noise. It is `SalUn` without its mask.

    Parameters
    ----------
    steps, batch_size, learning_rate : of Adam; the batch is that of either side.
    retain_weight : alpha, for losses that are means over pixels.
    target : what forgotten images are to be predicted as; see `EraseDiff`.

    Source: Golatkar et al. 2020, arXiv 1911.04933 (baseline, for classifiers); Fan et al.
    2024, arXiv 2310.12508, for diffusion models.
    """

    claim: ClassVar[str] = "erases images by relearning them under the answers for another class, or noise"
    source: ClassVar[str] = "Golatkar et al. 2020, arXiv 1911.04933; Fan et al. 2024, arXiv 2310.12508"

    retain_weight: float = 3.0
    target: Target = Target.AUTO

    def __post_init__(self) -> None:
        check_weight("retain_weight", self.retain_weight)

    def train(self, driver: Driver, request: Request) -> dict[str, float]:
        """Run the loop; see the class."""
        return relearn(driver, request, self.target, self.retain_weight)
