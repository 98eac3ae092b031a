"""Closed-form denoisers: models whose every answer is known, to decide what is right.

``EmpiricalDenoiser(train)`` is the perfect memorizer, ``EmpiricalDenoiser(retain)`` the
exactly unlearned model, ``gaussian_denoiser`` the perfect generalizer.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vestige.digest import digest_json, digest_tensors
from vestige.errors import EmptySet, InvalidInput
from vestige.models.denoiser import Denoiser, Images, Labels, Prediction, Times
from vestige.models.schedule import Schedule, VariancePreserving

_LEAST_SIGMA = 1e-6
"""Time 0 is answered at this noise level, where the formulas still divide: far below what 8-bit pixels show."""


def _shape(images: Tensor) -> tuple[int, int, int]:
    channels, height, width = images.shape[-3:]
    return int(channels), int(height), int(width)


def _image_dot(a: Tensor, b: Tensor) -> Tensor:
    return a.flatten(1) @ b.flatten(1).T


class EmpiricalDenoiser(Denoiser):
    """Optimal denoiser of the empirical distribution of a training set.

    ``E[x_0 | x_t] = sum_i w_i x_i``, ``w = softmax(log p_i - ||x_t - alpha x_i||^2 / 2 sigma^2)``.

    Parameters
    ----------
    train : images [m, c, h, w] in [-1, 1].
    labels : class of each image; a condition then restricts the sum to its class.
    weights : positive weights of the images (duplicate counts), uniform if absent.

    Raises
    ------
    EmptySet : there is no image, or none of the class that a condition asks for.
    """

    def __init__(
        self,
        train: Float[Tensor, "m c h w"],
        schedule: Schedule | None = None,
        *,
        labels: Int[Tensor, " m"] | None = None,
        weights: Float[Tensor, " m"] | None = None,
    ) -> None:
        if len(train) == 0:
            raise EmptySet(
                "EmpiricalDenoiser was given no images.", expected="at least one.", remedy="pass training images."
            )
        classes = 0 if labels is None else int(labels.max()) + 1
        super().__init__(schedule or VariancePreserving(), Prediction.CLEAN, _shape(train), classes=classes)
        self.train, self.labels = train.double(), labels
        mass = torch.ones(len(train)) if weights is None else weights
        self.log_weights = (mass.double() / mass.sum()).log()

    def forward(self, x_t: Images, t: Times, condition: Labels | None) -> Images:
        """Posterior mean over the training set, computed in float64."""
        x, (alpha, sigma) = x_t.double(), self.levels(t.double())
        scaled = self.train.flatten(1)
        ratio = alpha.flatten() / sigma.flatten().clamp_min(_LEAST_SIGMA).square()
        # -||x - a y||^2 / 2s^2 without the term in ||x||^2, which is the same for every y
        logits = ratio[:, None] * (_image_dot(x, self.train) - alpha.flatten()[:, None] * scaled.square().sum(1) / 2)
        logits = logits + self.log_weights
        if condition is not None and self.labels is not None:
            elsewhere = condition[:, None] != self.labels[None, :]
            if bool(elsewhere.all(1).any()):
                raise EmptySet(
                    f"EmpiricalDenoiser holds no image of class {int(condition[elsewhere.all(1)][0])}.",
                    expected="an image of every class that is asked for.",
                    remedy="ask for other classes, or build it without labels.",
                )
            logits = logits.masked_fill(elsewhere, -torch.inf)
        return (logits.softmax(1) @ scaled).view_as(x).to(x_t.dtype)

    @property
    def digest(self) -> str:
        """Digest of images, weights, labels and schedule."""
        tensors = {"train": self.train, "log_weights": self.log_weights}
        if self.labels is not None:
            tensors["labels"] = self.labels
        return digest_json({"oracle": "empirical", "data": digest_tensors(tensors), **self.schedule.key()})


class MixtureDenoiser(Denoiser):
    """Optimal denoiser of a mixture of Gaussians.

    Parameters
    ----------
    means : [k, c, h, w].
    covariances : [k, d, d] with d = c h w; singular ones (a Gaussian on a plane) are fine.
    weights : [k], positive; normalised here.
    """

    def __init__(
        self,
        means: Float[Tensor, "k c h w"],
        covariances: Float[Tensor, "k d d"],
        weights: Float[Tensor, " k"] | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__(schedule or VariancePreserving(), Prediction.CLEAN, _shape(means))
        if covariances.shape[-1] != means[0].numel():
            raise InvalidInput(
                f"covariances have side {covariances.shape[-1]}.",
                expected=f"side {means[0].numel()}, the number of pixels of a mean.",
                remedy="pass one [d, d] matrix a component.",
            )
        self.means = means.double().flatten(1)
        values, self.axes = torch.linalg.eigh(covariances.double())
        self.variances = values.clamp_min(0)
        mass = torch.ones(len(means)) if weights is None else weights
        self.log_weights = (mass.double() / mass.sum()).log()

    def forward(self, x_t: Images, t: Times, condition: Labels | None) -> Images:
        """Responsibility-weighted sum of the components' linear posterior means."""
        x, (alpha, sigma) = x_t.double().flatten(1), self.levels(t.double())
        alpha, sigma = alpha.view(-1, 1, 1), sigma.view(-1, 1, 1).clamp_min(_LEAST_SIGMA)
        centred = x[:, None, :] - alpha * self.means
        along = torch.einsum("nkd,kde->nke", centred, self.axes)
        total = alpha.square() * self.variances + sigma.square()
        logits = self.log_weights - (along.square() / total + total.log()).sum(-1) / 2
        posterior = torch.einsum("nke,kde->nkd", alpha * self.variances / total * along, self.axes) + self.means
        return (logits.softmax(1)[:, :, None] * posterior).sum(1).view_as(x_t).to(x_t.dtype)

    @property
    def digest(self) -> str:
        """Digest of all parameters and the schedule."""
        tensors = {"means": self.means, "axes": self.axes, "variances": self.variances, "weights": self.log_weights}
        return digest_json({"oracle": "mixture", "data": digest_tensors(tensors), **self.schedule.key()})


def gaussian_denoiser(
    mean: Float[Tensor, "c h w"], covariance: Float[Tensor, "d d"], schedule: Schedule | None = None
) -> MixtureDenoiser:
    """Optimal denoiser of one Gaussian: ``m + a C (a^2 C + s^2 I)^-1 (x_t - a m)``."""
    return MixtureDenoiser(mean[None], covariance[None], schedule=schedule)
