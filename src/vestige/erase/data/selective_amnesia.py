"""Selective Amnesia (Heng and Soh 2023, arXiv 2305.10120): forgetting as continual learning."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from vestige.erase.data.balance import Weights, descend
from vestige.erase.data.fisher import fisher_diagonal
from vestige.erase.data.random_label import check_weight
from vestige.erase.data.sides import Sides
from vestige.erase.data.teacher import Target, Teacher
from vestige.erase.driver import Batch, Driver, row_losses
from vestige.erase.eraser import Eraser
from vestige.erase.request import Request
from vestige.errors import InvalidInput, Unsupported
from vestige.models.denoiser import Denoiser

PUBLISHED_TIMES = 1000
"""Times over which the published Fisher information sums an image's loss."""


class Surrogate(Enum):
    """What takes the place of the forgotten.

    ``uniform`` is the published one: images of uniform noise under the forgotten class;
    ``mismatched`` is the frozen model's answer to the forgotten images under another class;
    ``noise`` is uniform noise in [0, 1] as their predicted noise; ``auto`` is uniform where
    whole classes are forgotten, mismatched where a model has classes, and noise elsewhere.
    """

    AUTO = "auto"
    UNIFORM = "uniform"
    MISMATCHED = "mismatched"
    NOISE = "noise"


@dataclass(frozen=True)
class SelectiveAmnesia(Eraser):
    """Learn a surrogate for the forgotten, replay the retained, hold the weights that matter.

    ``L = E_surrogate ||eps - eps_hat||^2 + gamma E_retain ||eps - eps_hat||^2
    + (lambda / D) sum_i F_i (theta_i - theta_0i)^2``

    Losses are means over the ``D`` pixels of an image. ``F`` is the diagonal of the Fisher
    information of the base on retained images, in the published unit: an image's loss is
    summed over pixels and 1,000 times before its gradient is squared. So ``lambda`` and
    ``gamma`` mean what they mean in the paper, whose losses are sums over pixels.

    A step costs six forward-equivalents, seven with the mismatched surrogate; the Fisher
    information costs three for each of its ``fisher_images * fisher_times`` noisy images, once.

    Parameters
    ----------
    steps, batch_size, learning_rate : of Adam; the batch is that of either side.
    ewc_weight : lambda; 10 in the public code, whose runs are a hundred times longer.
    replay_weight : gamma.
    fisher_images, fisher_times : retained images and stratified times behind F.
    surrogate : what takes the place of the forgotten.

    Source: arXiv 2305.10120, section 3.
    """

    claim: ClassVar[str] = "erases images by learning a surrogate while a penalty holds the weights that others need"
    source: ClassVar[str] = "Heng and Soh 2023, arXiv 2305.10120"

    ewc_weight: float = 1e-3
    replay_weight: float = 1.0
    fisher_images: int = 256
    fisher_times: int = 16
    surrogate: Surrogate = Surrogate.AUTO

    def __post_init__(self) -> None:
        check_weight("ewc_weight", self.ewc_weight)
        check_weight("replay_weight", self.replay_weight)
        if self.fisher_images < 1 or self.fisher_times < 1:
            raise InvalidInput(
                f"fisher_images={self.fisher_images}, fisher_times={self.fisher_times}.",
                expected="at least one of each.",
                remedy="change the option.",
            )

    def train(self, driver: Driver, request: Request) -> dict[str, float]:
        """Find the Fisher information, then run the loop; see the class."""
        base, surrogate, sides = driver.base, self._surrogate(driver.base, request), Sides(driver, request)
        teacher = None
        if surrogate is not Surrogate.UNIFORM:
            teacher = Teacher.of(Target(surrogate.value), base, request)
        fisher, spent = fisher_diagonal(
            base, driver.module, request.retain, self.fisher_images, self.fisher_times, driver.context
        )
        strength = self.ewc_weight * PUBLISHED_TIMES**2 * math.prod(base.shape)
        anchors = [p.detach().clone() for p in driver.parameters]
        replaced = partial(uniform_images, base)

        def step(index: int, rng: np.random.Generator) -> None:
            kept = sides.kept(rng)
            gone = sides.gone(rng, replaced) if teacher is None else sides.taught(index, rng, teacher)
            g_r = driver.gradient(kept, partial(row_losses, driver.student))
            g_f = driver.gradient(gone, partial(row_losses, driver.student))
            descend(driver.parameters, g_r, g_f, Weights(self.replay_weight, 1.0))
            add_penalty(driver.parameters, anchors, fisher, strength)

        cost = driver.run(step, f"Selective Amnesia, {len(request.forget)} images")
        return {
            **cost,
            "forward_equivalents": cost["forward_equivalents"] + spent,
            "fisher_forward_equivalents": float(spent),
        }

    def _surrogate(self, base: Denoiser, request: Request) -> Surrogate:
        own, kept = request.forget.labels, request.retain.labels
        labelled = base.classes >= 2 and own is not None
        if self.surrogate is Surrogate.UNIFORM and not labelled:
            raise Unsupported(
                "Noise images can take the place of a class only.",
                expected="a class-conditional model and labelled rows to forget.",
                remedy="use --set surrogate=noise.",
            )
        if self.surrogate is not Surrogate.AUTO:
            return self.surrogate
        if own is None or not labelled:
            return Surrogate.NOISE
        if kept is not None and not set(own.tolist()) & set(kept.tolist()):
            return Surrogate.UNIFORM
        return Surrogate.AUTO


def uniform_images(base: Denoiser, batch: Batch, rng: np.random.Generator) -> Batch:
    """The batch with images of uniform noise in [-1, 1] in place of its own; labels, times and noise stay."""
    clean = torch.from_numpy(2 * rng.random(tuple(batch.x_t.shape), np.float32) - 1).to(batch.x_t.device)
    return dataclasses.replace(batch, x_t=base.noised(clean, batch.noise, batch.t))


def add_penalty(
    parameters: Sequence[nn.Parameter], anchors: Sequence[Tensor], fisher: Sequence[Tensor], strength: float
) -> None:
    """Add the gradient of ``strength * sum_i F_i (theta_i - theta_0i)^2`` to the parameters', without a graph."""
    with torch.no_grad():
        for parameter, anchor, importance in zip(parameters, anchors, fisher, strict=True):
            if parameter.grad is not None:
                parameter.grad.addcmul_(importance, parameter - anchor, value=2 * strength)
