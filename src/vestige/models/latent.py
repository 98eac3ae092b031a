"""Differentiable generators from latents: what a search in latent space needs of a model, checked at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vestige.digest import digest_json
from vestige.errors import InvalidInput, ShapeMismatch, Unsupported
from vestige.models.adapters.gan import GanGenerator
from vestige.models.network import (
    PROBES,
    PixelRange,
    device_of,
    finite,
    repeatable,
    settle,
    still_settled,
    weights_digest,
)
from vestige.randomness import Stream, normal

_SLACK = 0.01
"""Share of the declared range by which an answer may leave it."""


@dataclass(frozen=True)
class Calls:
    """What a generator was asked for: ``images`` made, and ``gradients``, the images that were differentiated."""

    images: int = 0
    gradients: int = 0

    @property
    def forward_equivalents(self) -> int:
        """Cost in forward passes of one image: a backward pass counts two."""
        return self.images + 2 * self.gradients

    def since(self, before: Calls) -> Calls:
        """What came on top of ``before``."""
        return Calls(self.images - before.images, self.gradients - before.gradients)


class LatentGenerator:
    """A network from standard normal latents to outputs, differentiable in the latents.

    Parameters
    ----------
    network : called as ``f(z)`` or, when ``classes > 0``, ``f(z, labels)``; z float [n, *latent_shape], labels integer
        [n]; answers [n, ...], one finite output a latent. A module is put into evaluation mode; its weights are never
        asked for a gradient.
    latent_shape : shape of one latent. Its prior is the standard normal.
    identity : a name that changes whenever the network's answers change; it keys stored results. A module is
        identified by its weights as well.
    classes : number of class labels; 0 for an unconditional generator.
    pixels : what the network calls black and white; None for outputs without a range, such as rows of a table.
    differentiable : False for a generator that can only be called; whatever needs its gradient is then refused.
    batch_size : most rows a call.

    ``calls`` counts; a few made here, to check the network, are left out.

    Raises
    ------
    BadWeights : a weight, an answer or a derivative is NaN or infinite.
    InvalidInput : the answers are not one output a latent, leave the range, change from call to call or with the rest
        of the batch, do not depend on the latent, or a part of the module stays in training mode.
    Unsupported : the answers cannot be differentiated, though ``differentiable`` says so.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        latent_shape: tuple[int, ...],
        *,
        identity: str,
        classes: int = 0,
        pixels: PixelRange | None = PixelRange(),  # noqa: B008 - frozen
        differentiable: bool = True,
        batch_size: int = 128,
    ) -> None:
        if not latent_shape or min(latent_shape) < 1 or classes < 0 or batch_size < 1:
            raise InvalidInput(
                f"latent_shape={latent_shape}, classes={classes}, batch_size={batch_size}.",
                expected="a latent of at least 1 number, 0 or more classes, batches of at least 1.",
                remedy="change the option.",
            )
        self.network, self.latent_shape, self.identity = network, tuple(latent_shape), identity
        self.classes, self.pixels, self.differentiable, self.batch_size = classes, pixels, differentiable, batch_size
        self._images, self._gradients = 0, 0
        settle(network, "generator")
        self.shape = self._check()

    @staticmethod
    def of_gan(gan: GanGenerator) -> LatentGenerator:
        """The network of a GAN that was wrapped for sampling; row r of a seed has the same latent and label in both."""
        return LatentGenerator(
            gan.network,
            (gan.latent,),
            identity=gan.identity,
            classes=gan.classes,
            pixels=gan.pixels,
            batch_size=gan.batch_size,
        )

    @property
    def device(self) -> torch.device:
        """Where latents must live."""
        return device_of(self.network)

    @property
    def latent_size(self) -> int:
        """Numbers in one latent."""
        return prod(self.latent_shape)

    @property
    def calls(self) -> Calls:
        """What it was asked for so far."""
        return Calls(self._images, self._gradients)

    @property
    def digest(self) -> str:
        """Digest of identity, weights, latent, labels and range."""
        pixels = None if self.pixels is None else asdict(self.pixels)
        settings = {"latent": list(self.latent_shape), "classes": self.classes, "pixels": pixels}
        return digest_json({"identity": self.identity, "weights": weights_digest(self.network), **settings})

    def key(self) -> dict[str, Any]:
        """Digest of the network and its declaration."""
        return {"latent-generator": self.digest}

    def latents(
        self, rows: npt.NDArray[np.int64], seed: int, *, stream: Stream = Stream.SAMPLE, draw: int = 0
    ) -> Float[Tensor, "n ..."]:
        """Latents [n, *latent_shape] of the prior; each depends on seed, stream, draw and its row alone."""
        return torch.from_numpy(normal(seed, stream, rows, self.latent_shape, draw)).to(self.device)

    def labels_of(self, rows: npt.NDArray[np.int64]) -> Int[Tensor, " n"] | None:
        """Row r asks for class ``r mod classes``; None for an unconditional generator."""
        return torch.from_numpy(rows % self.classes).to(self.device) if self.classes else None

    def outputs(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Outputs [n, *shape] of latents, images in [-1, 1], in one batch.

        Gradients flow to the latents where they ask for one and the generator is differentiable.

        Raises
        ------
        ShapeMismatch : latents of another shape. InvalidInput : labels are missing or not asked for, or the module
        was put back into training mode. BadWeights : an answer is not finite.
        """
        self._accept(latents, labels)
        still_settled(self.network, "generator")
        answer = self._answer(latents, labels)
        finite(answer, "generator's answer")
        self._images += len(latents)
        if answer.requires_grad:
            answer.register_hook(self._count_gradient)
        return answer if self.pixels is None else self.pixels.inward(answer)

    @torch.no_grad()
    def made(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """:meth:`outputs` without a gradient, ``batch_size`` rows at a time."""
        told = [None] * len(latents) if labels is None else list(labels.split(self.batch_size))
        parts = [self.outputs(z, y) for z, y in zip(latents.split(self.batch_size), told, strict=False)]
        return torch.cat(parts) if parts else torch.empty(0, *self.shape, device=self.device)

    def need_gradient(self, purpose: str) -> None:
        """Raise Unsupported unless the generator is differentiable; ``purpose`` is what asks."""
        if not self.differentiable:
            raise Unsupported(
                f"{purpose} needs the gradient of a generator that was declared without one.",
                expected="a differentiable generator.",
                remedy="use CmaEs or Rejection, which only look at outputs.",
            )

    def _count_gradient(self, gradient: Tensor) -> None:
        self._gradients += len(gradient)

    def _answer(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        with nullcontext() if self.differentiable else torch.no_grad():
            return self.network(latents) if labels is None else self.network(latents, labels)

    def _accept(self, latents: Tensor, labels: Tensor | None) -> None:
        if tuple(latents.shape[1:]) != self.latent_shape:
            raise ShapeMismatch(
                f"Latents of shape {tuple(latents.shape)} were given.",
                expected=f"[n, {', '.join(map(str, self.latent_shape))}], the generator's own shape.",
                remedy="draw them with LatentGenerator.latents, or check which generator saved them.",
            )
        if (labels is not None) != bool(self.classes) or (labels is not None and labels.shape != (len(latents),)):
            raise InvalidInput(
                f"{'No labels' if labels is None else f'Labels of shape {tuple(labels.shape)}'} were given for "
                f"{len(latents)} latents of a generator of {self.classes} classes.",
                expected="one label a latent." if self.classes else "no labels.",
                remedy="take them from LatentGenerator.labels_of, or name the class that is wanted.",
            )

    def _check(self) -> tuple[int, ...]:
        rows = np.arange(PROBES, dtype=np.int64)
        latents, labels = self.latents(rows, 0).requires_grad_(self.differentiable), self.labels_of(rows)
        answer = self._answer(latents, labels)
        if answer.ndim < 2 or len(answer) != PROBES:
            raise InvalidInput(
                f"The generator answered {PROBES} latents with shape {tuple(answer.shape)}.",
                expected="[n, ...], one output a latent.",
                remedy="wrap it so that it returns one output a latent.",
            )
        finite(answer, "generator's answer")
        self._check_range(answer.detach())
        with torch.no_grad():
            alone = self._answer(latents[-1:], None if labels is None else labels[-1:])
            repeatable(answer.detach(), self._answer(latents, labels), alone, "generator")
        if self.differentiable:
            _check_gradient(latents, answer)
        return tuple(answer.shape[1:])

    def _check_range(self, answer: Tensor) -> None:
        if self.pixels is None:
            return
        low, high, slack = float(answer.min()), float(answer.max()), _SLACK * (self.pixels.high - self.pixels.low)
        if low < self.pixels.low - slack or high > self.pixels.high + slack:
            raise InvalidInput(
                f"The generator's outputs reach from {low:.3g} to {high:.3g}.",
                expected=f"outputs from {self.pixels.low:g} to {self.pixels.high:g}, as declared.",
                remedy="declare the right PixelRange (None for outputs without a range), or clip them.",
            )


def _check_gradient(latents: Tensor, answer: Tensor) -> None:
    """Every probe must move with its latent, by a finite derivative.

    The derivative asked for is that of a random combination of the outputs: their plain sum would miss a generator
    that keeps the mean of its outputs constant.
    """
    if not answer.requires_grad:
        raise Unsupported(
            "The generator's answer has no derivative with respect to its latent.",
            expected="a network that torch can differentiate.",
            remedy="switch no_grad, numpy and custom kernels off inside it, or declare differentiable=False.",
        )
    weights = torch.from_numpy(normal(0, Stream.RARE, range(len(answer)), tuple(answer.shape[1:]))).to(answer)
    gradient = torch.autograd.grad((answer * weights).sum(), latents)[0].flatten(1)
    finite(gradient, "generator's derivative")
    still = int((gradient == 0).all(1).sum())
    if still:
        raise InvalidInput(
            f"The outputs of {still} of {PROBES} latents have a derivative of zero.",
            expected="outputs that move with their latent.",
            remedy="see that no rounding, clipping or detach() stands between latent and output.",
        )
