"""The denoiser: ``mean(x_t, t) = E[x_0 | x_t]``, with noise, velocity and score derived from it.

An adapter says once what its network predicts; every method asks for the quantity that
its formula needs. With ``x_t = alpha x_0 + sigma eps``:

==============  =====================================  =============================
prediction p    clean image                            noise
==============  =====================================  =============================
noise           (x_t - sigma p) / alpha                p
clean           p                                      (x_t - alpha p) / sigma
velocity        (alpha x_t - sigma p) / (a^2 + s^2)    (sigma x_t + alpha p) / (a^2 + s^2)
flow            (x_t - sigma p) / (alpha + sigma)      (x_t + alpha p) / (alpha + sigma)
score           (x_t + sigma^2 p) / alpha              -sigma p
==============  =====================================  =============================

Velocity is ``alpha eps - sigma x_0`` (Salimans and Ho 2022, arXiv 2202.00512), flow is
``eps - x_0`` on straight lines (Liu et al. 2023, arXiv 2209.03003).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vestige.errors import Unsupported
from vestige.models.access import Access
from vestige.models.schedule import Schedule

Images = Float[Tensor, "n channels height width"]
Times = Float[Tensor, " n"]
Labels = Int[Tensor, " n"]


class Prediction(Enum):
    """What a network was trained to output."""

    NOISE = "noise"
    CLEAN = "clean"
    VELOCITY = "velocity"
    FLOW = "flow"
    SCORE = "score"

    def mean(self, p: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Clean image from a prediction (table above)."""
        match self:
            case Prediction.NOISE:
                return (x_t - sigma * p) / alpha
            case Prediction.CLEAN:
                return p
            case Prediction.VELOCITY:
                return (alpha * x_t - sigma * p) / (alpha.square() + sigma.square())
            case Prediction.FLOW:
                return (x_t - sigma * p) / (alpha + sigma)
            case Prediction.SCORE:
                return (x_t + sigma.square() * p) / alpha

    def noise(self, p: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Noise from a prediction (table above)."""
        match self:
            case Prediction.NOISE:
                return p
            case Prediction.CLEAN:
                return (x_t - alpha * p) / sigma
            case Prediction.VELOCITY:
                return (sigma * x_t + alpha * p) / (alpha.square() + sigma.square())
            case Prediction.FLOW:
                return (x_t + alpha * p) / (alpha + sigma)
            case Prediction.SCORE:
                return -sigma * p

    def target(self, clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What a network should answer at ``alpha clean + sigma noise``; :meth:`mean` and :meth:`noise` invert it."""
        match self:
            case Prediction.NOISE:
                return noise
            case Prediction.CLEAN:
                return clean
            case Prediction.VELOCITY:
                return alpha * noise - sigma * clean
            case Prediction.FLOW:
                return noise - clean
            case Prediction.SCORE:
                return -noise / sigma


class Denoiser(ABC):
    """A diffusion model at one noise level.

    Parameters
    ----------
    schedule : how images were noised.
    prediction : what :meth:`forward` returns.
    shape : (channels, height, width) of an image.
    classes : number of class labels; 0 for an unconditional model.
    null_condition : the label that means "no condition", if the model was trained with one.
    access : what an examiner may see of it.

    ``evaluations`` counts every network evaluation, one an image.
    """

    def __init__(
        self,
        schedule: Schedule,
        prediction: Prediction,
        shape: tuple[int, int, int],
        *,
        classes: int = 0,
        null_condition: int | None = None,
        access: Access = Access.SCORES,
    ) -> None:
        self.schedule, self.prediction, self.shape = schedule, prediction, shape
        self.classes, self.null_condition, self.access = classes, null_condition, access
        self.evaluations = 0

    @abstractmethod
    def forward(self, x_t: Images, t: Times, condition: Labels | None) -> Images:
        """The raw prediction at noisy images ``x_t`` and times in [0, 1]."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Identifies weights, schedule and prediction; equal digests give equal outputs."""

    @property
    def device(self) -> torch.device:
        """Where inputs must live."""
        return torch.device("cpu")

    @property
    def module(self) -> nn.Module:
        """The network, for methods that change or differentiate weights.

        Raises
        ------
        Unsupported : the denoiser is not a trainable network.
        """
        raise Unsupported(
            f"{type(self).__name__} has no weights to change.",
            expected="a model backed by a torch module.",
            remedy="load a diffusers folder or wrap an nn.Module.",
        )

    def with_module(self, module: nn.Module) -> Denoiser:
        """This model with another network of the same architecture.

        Raises
        ------
        Unsupported : the denoiser is not a trainable network.
        """
        raise Unsupported(
            f"{type(self).__name__} has no weights to replace.",
            expected="a model backed by a torch module.",
            remedy="load a diffusers folder or wrap an nn.Module.",
        )

    def levels(self, t: Times) -> tuple[Float[Tensor, "n 1 1 1"], Float[Tensor, "n 1 1 1"]]:
        """Signal and noise level of each time, shaped to multiply images."""
        alpha, sigma = self.schedule.alpha_sigma(t)
        return alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)

    def predict(self, x_t: Images, t: Times, condition: Labels | None = None) -> Images:
        """The raw prediction, counted."""
        self.evaluations += len(x_t)
        return self.forward(x_t, t, condition)

    def mean(self, x_t: Images, t: Times, condition: Labels | None = None) -> Images:
        """``E[x_0 | x_t]``, images in [-1, 1] up to the model's error."""
        return self.prediction.mean(self.predict(x_t, t, condition), x_t, *self.levels(t))

    def noise(self, x_t: Images, t: Times, condition: Labels | None = None) -> Images:
        """``E[eps | x_t]``, unit variance per pixel."""
        return self.prediction.noise(self.predict(x_t, t, condition), x_t, *self.levels(t))

    def mean_and_noise(self, x_t: Images, t: Times, condition: Labels | None = None) -> tuple[Images, Images]:
        """Both, from one evaluation."""
        p, levels = self.predict(x_t, t, condition), self.levels(t)
        return self.prediction.mean(p, x_t, *levels), self.prediction.noise(p, x_t, *levels)

    def velocity(self, x_t: Images, t: Times, condition: Labels | None = None) -> Images:
        """``alpha E[eps | x_t] - sigma E[x_0 | x_t]``."""
        mean, noise = self.mean_and_noise(x_t, t, condition)
        alpha, sigma = self.levels(t)
        return alpha * noise - sigma * mean

    def score(self, x_t: Images, t: Times, condition: Labels | None = None) -> Images:
        """``grad log p_t(x_t) = -E[eps | x_t] / sigma`` (Tweedie)."""
        return -self.noise(x_t, t, condition) / self.levels(t)[1]

    def noised(self, x_0: Images, noise: Images, t: Times) -> Images:
        """``x_t = alpha x_0 + sigma eps``."""
        alpha, sigma = self.levels(t)
        return alpha * x_0 + sigma * noise
