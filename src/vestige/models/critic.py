"""The discriminator of a GAN, as a judge of single images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vestige.digest import digest_json
from vestige.errors import InvalidInput
from vestige.models.denoiser import Images, Labels
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


class Critic:
    """Wraps a discriminator. A higher logit: likelier, in its eyes, a training image.

    Parameters
    ----------
    network : called as ``f(images)`` or, when ``classes > 0``, ``f(images, labels)``; answers [n] or [n, 1]. A module
        is put into evaluation mode.
    shape : (channels, height, width) of the images.
    identity, classes, pixels : as for :class:`vestige.models.adapters.gan.GanGenerator`.

    ``evaluations`` counts the images that were judged; a few judged here, to check the network, are left out.

    Raises
    ------
    BadWeights : a weight or an answer is NaN or infinite.
    InvalidInput : the answers are not one number an image, change from call to call or with the rest of the batch, or
        a part of the module stays in training mode.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        shape: tuple[int, int, int],
        *,
        identity: str,
        classes: int = 0,
        pixels: PixelRange | None = None,
    ) -> None:
        self.network, self.shape, self.identity = network, shape, identity
        self.classes, self.pixels, self.evaluations = classes, pixels or PixelRange(), 0
        settle(network, "critic")
        images = torch.from_numpy(normal(0, Stream.SAMPLE, range(PROBES), shape)).clamp(-1, 1).to(self.device)
        labels = torch.arange(PROBES, device=self.device) % classes if classes else None
        first, again = self._judge(images, labels), self._judge(images, labels)
        repeatable(first, again, self._judge(images[-1:], None if labels is None else labels[-1:]), "critic")

    @property
    def device(self) -> torch.device:
        """Where images must live."""
        return device_of(self.network)

    def logits(self, images: Images, labels: Labels | None = None) -> npt.NDArray[np.float64]:
        """The critic's logit of each image in [-1, 1], [n], counted.

        Raises
        ------
        InvalidInput : a class-conditional critic was given no labels, or was put back into training mode.
        BadWeights : a logit is not finite.
        """
        if self.classes and labels is None:
            raise InvalidInput(
                "A class-conditional critic was given images without labels.",
                expected=f"a label in 0..{self.classes - 1} for every image.",
                remedy="give the data labels (one sub-folder a class, or `labels` in the npz).",
            )
        still_settled(self.network, "critic")
        self.evaluations += len(images)
        return self._judge(images, labels if self.classes else None).double().cpu().numpy()

    @torch.no_grad()
    def _judge(self, images: Tensor, labels: Tensor | None) -> Tensor:
        answer = self.network(self.pixels.outward(images), *([] if labels is None else [labels]))
        if answer.numel() != len(images):
            raise InvalidInput(
                f"The critic answered {len(images)} images with shape {tuple(answer.shape)}.",
                expected="one logit an image, [n] or [n, 1].",
                remedy="wrap it so that it returns the logit of the training data.",
            )
        finite(answer, "critic's answer")
        return answer.reshape(len(images))

    @property
    def digest(self) -> str:
        """Digest of identity, weights, labels and range."""
        settings = {"classes": self.classes, "shape": list(self.shape), **asdict(self.pixels)}
        return digest_json({"identity": self.identity, "weights": weights_digest(self.network), **settings})
