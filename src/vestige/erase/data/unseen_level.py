"""Forgetting to a level: forgotten images end where images never seen stand, neither short of it nor past it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from torch import Tensor

from vestige.erase.data.balance import Weights, descend
from vestige.erase.data.sides import Sides
from vestige.erase.data.teacher import Unlearned
from vestige.erase.driver import Batch, Driver, error_scale, row_losses
from vestige.erase.eraser import Eraser
from vestige.erase.request import Request
from vestige.erase.residue import Level, traits
from vestige.errors import InvalidInput, Unsupported
from vestige.models.denoiser import Denoiser


@dataclass(frozen=True)
class UnseenLevel(Eraser):
    """Move the answer on each forgotten image to that of a model that never saw it, and hold the retain loss.

    With the error ``l`` of a noisy forgotten image x, a pixel, and the error ``tau(x, t)`` that the base would have on
    it had it never seen it, each step descends

        ``E_retain ||eps - eps_hat||^2 + E_forget [w a tau / 2 log^2(l / tau) + v s ||eps_f - eps_hat||^2]``,

    where ``a = 1 / (1 + (sigma / alpha / r)^4)`` and ``s = 1 - a``.

    ``tau`` is predicted from images never seen: by time, by total variation, and by the distance to the nearest
    retained images (:class:`vestige.erase.residue.Level`).

    The second term, which rules at small noise, pulls from both sides: a memorized image, whose error lies far below
    the level, is pushed up, with a force that does not die with its small gradient; one that stands at the level is
    left alone; one beyond it is pulled back. The force ``tau log(l / tau) / l`` on the error is bounded by ``most``.
    The third rules at large noise, where an error hardly says which image a sample is drawn to, but where a model's
    answer is a mean over many images: there ``eps_f = eps_u + p (eps_u - eps_base)``, the answer of the exactly
    unlearned model and p times as far again beyond it (:class:`vestige.erase.data.teacher.Unlearned`). Without going
    beyond, images of many copies still come out now and then, since points beside those taught still lead to them.

    It is meant for single images and everything that an audit extracted. A class that is to be forgotten altogether
    has no images never seen in the model's own classes to compare with, and is refused. A step costs seven
    forward-equivalents, six with a bank of targets or p = 0; the level costs 1,020, once.

    Parameters
    ----------
    steps, batch_size, learning_rate : of Adam; the batch is that of either side.
    level_weight, teach_weight : w and v.
    most : bound on the force.
    handover : r, the noise-to-signal ratio at which both terms weigh alike.
    push : p.

    Source: ours; the retain loss is that of Ho et al. 2020, arXiv 2006.11239, equation 14, and that forgetting past
    the level of a retrained model is a leak of its own follows Hayes et al. 2024, arXiv 2403.01218.
    """

    claim: ClassVar[str] = "moves the answers on forgotten images to those of a model that never saw them, no further"
    source: ClassVar[str] = "ours; the level of a retrained model as the aim: Hayes et al. 2024, arXiv 2403.01218"

    level_weight: float = 3.0
    teach_weight: float = 1.0
    most: float = 10.0
    handover: float = 1.3
    push: float = 1.0

    def __post_init__(self) -> None:
        positive = (self.level_weight, self.most, self.handover)
        others = (self.teach_weight, self.push)
        if not all(0 < v < math.inf for v in positive) or not all(0 <= v < math.inf for v in others):
            raise InvalidInput(
                f"{self}.",
                expected="finite numbers, none negative, and only teach_weight and push 0.",
                remedy="change the option.",
            )

    def train(self, driver: Driver, request: Request) -> dict[str, float]:
        """Measure the level, then run the loop; see the class.

        Raises
        ------
        InvalidInput : the request has no images never seen.
        Unsupported : a whole class is to be forgotten.
        """
        if request.whole_classes:
            raise Unsupported(
                f"Class {request.whole_classes[0]} is to be forgotten altogether.",
                expected="images of classes that the model keeps, for which images never seen show the level.",
                remedy="use --method meanlabel or erasediff for a class.",
            )
        before = driver.evaluations
        level = Level.of(driver.base, request, driver.context.seed)
        spent, sides = driver.evaluations - before, Sides(driver, request)
        described = traits(request.forget, request.retain)
        teacher = Unlearned.of(driver.base, request, self.push)

        def losses(part: Batch) -> Tensor:
            return self.pulled(driver.student, part, level.at(part.t, described[part.rows]))

        def step(index: int, rng: np.random.Generator) -> None:
            g_r = driver.gradient(sides.kept(rng), partial(row_losses, driver.student))
            g_f = driver.gradient(sides.taught(index, rng, teacher), losses)
            descend(driver.parameters, g_r, g_f, Weights(1.0, 1.0))

        cost = driver.run(step, f"UnseenLevel, {len(request.forget)} images")
        return {
            **cost,
            "forward_equivalents": cost["forward_equivalents"] + spent,
            "level_forward_equivalents": float(spent),
        }

    def pulled(self, student: Denoiser, batch: Batch, levels: Tensor) -> Tensor:
        """Losses [n]: the pull to the level and that to the batch's targets, shared by time.

        The gradient of the first is that of ``tau / 2 log^2(l / tau)``, the force on each error bounded.
        """
        answer, scale = student.noise(batch.x_t, batch.t, batch.condition), error_scale(student, batch.t)
        own = ((answer - batch.noise).square() * scale).flatten(1).mean(1)
        level = self.level_weight * force(own.detach(), levels * scale.flatten(), self.most) * own
        alpha, sigma = (value.flatten() for value in student.levels(batch.t))
        share = 1 / (1 + (sigma / alpha / self.handover).pow(4))
        taught = self.teach_weight * ((answer - batch.wanted).square() * scale).flatten(1).mean(1)
        return share * level + (1 - share) * taught


def force(losses: Tensor, levels: Tensor, most: float) -> Tensor:
    """Derivative of ``tau / 2 log^2(l / tau)`` by ``l``, in ``[-most, most]``: negative below the level."""
    ratio = losses.clamp_min(1e-12) / levels
    return (ratio.log() / ratio).clamp(-most, most)
