"""Optimal denoisers of curved and bounded sets whose local dimension is known at every finite noise level.

Points are images of shape (1, 1, D). With ``y = x_t / alpha`` and ``delta = sigma / alpha`` each class states
``E[x_0 | y]`` under its distribution convolved with ``N(0, delta^2)``, in functions that torch differentiates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor

from vestige.digest import digest_json
from vestige.models.adapters.function import FunctionDenoiser
from vestige.models.denoiser import Denoiser, Prediction
from vestige.models.schedule import Cosine, DiscreteTable, RectifiedFlow, VarianceExploding, VariancePreserving

SCHEDULE = VarianceExploding(1e-4, 100.0)


class ClosedForm(Denoiser, ABC):
    """A denoiser told as a posterior mean in clean space."""

    def __init__(self, ambient: int, schedule=None) -> None:
        super().__init__(schedule or SCHEDULE, Prediction.CLEAN, (1, 1, ambient))

    @abstractmethod
    def posterior(self, y: Tensor, delta: Tensor) -> Tensor:
        """``E[x_0 | y]`` for y [n, D] and delta [n, 1]."""

    def forward(self, x_t, t, condition):
        alpha, sigma = (level.view(-1, 1) for level in self.levels(t))
        return self.posterior(x_t.flatten(1) / alpha, sigma / alpha).view_as(x_t)

    @property
    def digest(self) -> str:
        return digest_json({"closed form": type(self).__name__, **self.schedule.key()})


def bessel_ratio(order: float, x: Tensor, steps: int = 120) -> Tensor:
    """``I_{order+1}(x) / I_order(x)``, downwards from Amos' bound at a high order (Amos 1974)."""
    high = order + steps
    ratio = x / (high + 0.5 + torch.sqrt((high + 1.5) ** 2 + x.square()))
    for nu in range(steps, 0, -1):
        ratio = 1 / (2 * (order + nu) / x + ratio)
    return ratio


class Sphere(ClosedForm):
    """Uniform on the sphere of dimension ``inner - 1`` in the first ``inner`` coordinates of R^D."""

    def __init__(self, inner: int, ambient: int, radius: float = 1.0, schedule=None) -> None:
        super().__init__(ambient, schedule)
        self.inner, self.radius = inner, radius

    def posterior(self, y, delta):
        part = y[:, : self.inner]
        norm = part.norm(dim=1, keepdim=True)
        kappa = norm * self.radius / delta.square()
        ratio = torch.special.i1e(kappa) / torch.special.i0e(kappa)
        if self.inner != 2:
            ratio = bessel_ratio(self.inner / 2 - 1, kappa)
        zeros = torch.zeros_like(y[:, self.inner :])
        return torch.cat([self.radius * ratio * part / norm, zeros], 1)


class VonMisesAndAtom(ClosedForm):
    """A von Mises density on the unit circle, and an atom at its centre."""

    def __init__(self, kappa: float = 2.0, atom: float = 0.2, schedule=None) -> None:
        super().__init__(2, schedule)
        self.kappa, self.atom = kappa, atom

    def posterior(self, y, delta):
        square = delta.square()
        pull = y / square + torch.tensor([self.kappa, 0.0], dtype=y.dtype)
        size = pull.norm(dim=1, keepdim=True)
        normal = math.log(float(torch.special.i0(torch.tensor(self.kappa, dtype=torch.float64))))
        circle = math.log(1 - self.atom) + torch.special.i0e(size).log() + size - normal - 1 / (2 * square)
        share = torch.sigmoid(circle - math.log(self.atom))
        return share * torch.special.i1e(size) / torch.special.i0e(size) * pull / size


class Segment(ClosedForm):
    """Uniform on the unit interval of the first axis in the plane: the mean of a truncated normal."""

    def __init__(self, schedule=None) -> None:
        super().__init__(2, schedule)

    def posterior(self, y, delta):
        low, high = -y[:, :1] / delta, (1 - y[:, :1]) / delta
        mass = (torch.erf(high / math.sqrt(2)) - torch.erf(low / math.sqrt(2))) / 2
        density = (torch.exp(-low.square() / 2) - torch.exp(-high.square() / 2)) / math.sqrt(2 * math.pi)
        return torch.cat([y[:, :1] + delta * density / mass, torch.zeros_like(y[:, 1:])], 1)


class Disc(ClosedForm):
    """Uniform on the unit disc of the first two coordinates in R^D, by quadrature over the radius."""

    def __init__(self, ambient: int = 2, nodes: int = 400, schedule=None) -> None:
        super().__init__(ambient, schedule)
        place, weight = np.polynomial.legendre.leggauss(nodes)
        self.radius, self.weight = torch.from_numpy((place + 1) / 2), torch.from_numpy(weight / 2)

    def posterior(self, y, delta):
        part = y[:, :2]
        norm = (part.square().sum(1, keepdim=True) + 1e-24).sqrt()
        s, square = self.radius.to(y.dtype), delta.square()
        argument = s * norm / square
        common = self.weight.to(y.dtype) * s * torch.exp(-(s - norm).square() / (2 * square))
        mass = (common * torch.special.i0e(argument)).sum(1, keepdim=True)
        pull = (common * s * torch.special.i1e(argument)).sum(1, keepdim=True)
        return torch.cat([pull / mass * part / norm, torch.zeros_like(y[:, 2:])], 1)


TARGETS = {
    Prediction.NOISE: lambda x, e, a, s: e,
    Prediction.CLEAN: lambda x, e, a, s: x,
    Prediction.VELOCITY: lambda x, e, a, s: a * e - s * x,
    Prediction.FLOW: lambda x, e, a, s: e - x,
    Prediction.SCORE: lambda x, e, a, s: -e / s,
}
"""What each network is trained to output, from the definitions."""

SCHEDULES = {
    "vp": VariancePreserving(),
    "cosine": Cosine(),
    "ve": VarianceExploding(),
    "flow": RectifiedFlow(),
    "table": DiscreteTable(torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)),
}


def as_network(oracle: Denoiser, prediction: Prediction) -> FunctionDenoiser:
    """The same model as a network that predicts something else."""

    def network(x_t, t):
        mean, noise = oracle.mean_and_noise(x_t, t)
        return TARGETS[prediction](mean, noise, *oracle.levels(t))

    return FunctionDenoiser(network, oracle.schedule, prediction, oracle.shape, identity=prediction.value)


def spectrum(ambient: int, flat: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Variances [D], the first ``flat`` positive, and a covariance [D, D] that has them along random axes."""
    rng = np.random.default_rng(seed)
    variances = np.concatenate([rng.uniform(0.3, 1.5, flat), np.zeros(ambient - flat)])
    axes = np.linalg.qr(rng.standard_normal((ambient, ambient)))[0]
    return torch.from_numpy(variances), torch.from_numpy(axes @ np.diag(variances) @ axes.T)


def gaussian_flipd(covariance: Tensor, y: Tensor, ratios: np.ndarray) -> np.ndarray:
    """``sum_i l_i / (l_i + r^2) + r^2 y_i^2 / (l_i + r^2)^2`` [n, levels] for N(0, C) at y [n, D]."""
    variances, axes = np.linalg.eigh(covariance.numpy())
    along, total = np.square(y.numpy() @ axes)[:, None], variances + np.square(ratios)[None, :, None]
    return (variances / total + np.square(ratios)[None, :, None] * along / np.square(total)).sum(2)
