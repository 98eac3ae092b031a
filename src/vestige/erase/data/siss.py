"""SISS (Alberti et al. 2025, arXiv 2503.01034): the forget loss subtracted from the retain loss, in one pass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vestige.erase.data.balance import descend, gram, subtracted
from vestige.erase.data.sides import pull
from vestige.erase.driver import Driver, cut, error_scale
from vestige.erase.eraser import Eraser
from vestige.erase.request import Request
from vestige.errors import InvalidInput
from vestige.models.denoiser import Denoiser, Labels


@dataclass(frozen=True)
class SISS(Eraser):
    """Descend the retain loss minus the forget loss, both estimated at one noisy image.

    A retained image x and a forgotten one a are paired with one time and noise, and ``x_t`` is drawn from the
    mixture ``q_mix = (1 - mix) q(x_t | x) + mix q(x_t | a)``. With ``eps_x = (x_t - alpha x) / sigma``, ``eps_a``
    likewise, and the importance weights

        ``w_x = q(x_t | x) / q_mix``,  ``w_a = q(x_t | a) / q_mix``,

    ``L_x = E w_x ||eps_x - eps_hat(x_t)||^2`` and ``L_a = E w_a ||eps_a - eps_hat(x_t)||^2`` are exactly the retain and
    the forget loss, from a single evaluation. Each step moves along ``g_x - s g_a`` with ``s ||g_a|| = share ||g_x||``:
    the factor follows the norms, as in the public code, where the authors advise a tenth.

    For a class-conditional network a density is one of image *and* label, so ``w`` is 0 for a partner of another
    class; both losses stay exact.

    A step costs five forward-equivalents: one pass forward and two back.

    Parameters
    ----------
    steps, batch_size, learning_rate : of Adam on the direction; the batch is one of pairs.
    mix : chance that the noisy image comes from the forgotten one, strictly between 0 and 1, so that both weights are
        bounded (by ``1 / (1 - mix)`` and ``1 / mix``).
    share : length of the subtracted gradient relative to the other.

    Source: arXiv 2503.01034, SISS with a defensive mixture, and the authors' code for the factor s.
    """

    claim: ClassVar[str] = "subtracts the forget loss from the retain loss, both from one importance-sampled pass"
    source: ClassVar[str] = "Alberti et al. 2025, arXiv 2503.01034"

    learning_rate: float = 1e-4
    mix: float = 0.5
    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.mix < 1 or not (math.isfinite(self.share) and self.share > 0):
            raise InvalidInput(
                f"mix={self.mix}, share={self.share}.",
                expected="a mix strictly between 0 and 1 and a positive share.",
                remedy="change the option.",
            )

    def train(self, driver: Driver, request: Request) -> dict[str, float]:
        """Run the loop; see the class."""

        def step(index: int, rng: np.random.Generator) -> None:
            pairs = driver.share(draw_pairs(driver.base, request, rng, self.batch_size, self.mix))
            g_r, g_f = driver.gradients(pairs, lambda part: paired_losses(driver.student, part, self.mix))
            descend(driver.parameters, g_r, g_f, subtracted(gram(g_r, g_f), self.share))

        return driver.run(step, f"SISS, {len(request.forget)} images")


@dataclass(frozen=True)
class Pairs:
    """A retained and a forgotten image [n, c, h, w] each, their labels [n] or None, one time [n] and noise.

    ``chosen`` says for which pairs the noisy image comes from the forgotten one, bool [n].
    """

    retain: Tensor
    forget: Tensor
    retain_labels: Labels | None
    forget_labels: Labels | None
    t: Tensor
    noise: Tensor
    chosen: Tensor

    def __len__(self) -> int:
        return len(self.t)

    def part(self, rows: slice) -> Pairs:
        """The chosen rows."""
        return cut(self, rows)


def draw_pairs(denoiser: Denoiser, request: Request, rng: np.random.Generator, size: int, mix: float) -> Pairs:
    """Pairs with uniform times and Gaussian noise; rows by their copies, forgotten ones by the root of them."""
    device = denoiser.device
    copies, weights = request.retain_copies, pull(request)
    kept = rng.choice(len(request.retain), size=size, p=copies / copies.sum())
    gone = rng.choice(len(request.forget), size=size, p=None if weights is None else weights / weights.sum())
    t = denoiser.schedule.nearest_grid(torch.from_numpy(1 - rng.random(size)).float().to(device))
    noise = torch.from_numpy(rng.standard_normal((size, *denoiser.shape), np.float32)).to(device)
    labels: list[Labels | None] = [None, None]
    if denoiser.classes and request.retain.labels is not None and request.forget.labels is not None:
        found = (request.retain.labels[kept], request.forget.labels[gone])
        labels = [torch.from_numpy(label).to(device) for label in found]
    images = request.retain.floats(kept).to(device), request.forget.floats(gone).to(device)
    chosen = torch.from_numpy(rng.random(size) < mix).to(device)
    return Pairs(*images, labels[0], labels[1], t, noise, chosen)


def paired_losses(student: Denoiser, pairs: Pairs, mix: float) -> Tensor:
    """Retain and forget loss of each pair, a pixel [2, n], from one evaluation of the mixture; unbiased in the mean.

    Scaled as in :func:`vestige.erase.driver.row_losses`.
    """
    alpha, sigma = student.levels(pairs.t)
    x_t = alpha * torch.where(pairs.chosen.view(-1, 1, 1, 1), pairs.forget, pairs.retain) + sigma * pairs.noise
    noises = [(x_t - alpha * clean) / sigma for clean in (pairs.retain, pairs.forget)]
    # log q(x_t | a) - log q(x_t | x) of two Gaussians of one variance
    retain, forget = (noise.double().square().flatten(1).sum(1) / 2 for noise in noises)
    ratio, condition = retain - forget, None
    if pairs.retain_labels is not None and pairs.forget_labels is not None:
        condition = torch.where(pairs.chosen, pairs.forget_labels, pairs.retain_labels)
        certain = torch.where(pairs.chosen, torch.inf, -torch.inf).to(ratio)
        ratio = torch.where(pairs.retain_labels == pairs.forget_labels, ratio, certain)
    answer, scale = student.noise(x_t, pairs.t, condition), error_scale(student, pairs.t)
    losses = [
        weight.to(answer) * ((answer - noise).square() * scale).flatten(1).mean(1)
        for weight, noise in zip(importance(ratio, mix), noises, strict=True)
    ]
    return torch.stack(losses)


def importance(log_ratio: Tensor, mix: float) -> tuple[Tensor, Tensor]:
    """``w_x = q_x / q_mix`` and ``w_a = q_a / q_mix`` from ``log(q_a / q_x)`` [n], with no overflow.

    ``q_mix = (1 - mix) q_x + mix q_a``, so ``(1 - mix) w_x + mix w_a = 1``.
    """
    logit = log_ratio + math.log(mix / (1 - mix))
    return torch.sigmoid(-logit) / (1 - mix), torch.sigmoid(logit) / mix
