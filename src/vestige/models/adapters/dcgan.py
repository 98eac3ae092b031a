"""A small convolutional GAN for small images: the networks of the zoo's GANs.

Upsampling generator and strided critic in the manner of Radford et al. 2016 (DCGAN, arXiv 1511.06434), with the
projection critic of Miyato and Koyama 2018 (arXiv 1802.05637) when there are classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vestige.errors import CorruptFile, InvalidInput


@dataclass(frozen=True)
class Dcgan:
    """The shape of both networks.

    Parameters
    ----------
    latent : dimension of the standard normal latent.
    classes : number of class labels; 0 for an unconditional GAN.
    shape : (channels, height, width) of an image; height and width at least 8 and divisible by 4.
    width : channels of the generator's first stage, divisible by 4; the next have a half and a quarter of them.
    critic_width : channels of the critic's first stage; the next have twice and four times as many.
    embedding : dimension of the class embedding that joins the latent.

    Raises
    ------
    InvalidInput : a size is not of that kind.
    """

    latent: int = 64
    classes: int = 10
    shape: tuple[int, int, int] = (1, 28, 28)
    width: int = 96
    critic_width: int = 32
    embedding: int = 16

    def __post_init__(self) -> None:
        sizes = (self.latent, self.width, self.critic_width, self.embedding, *self.shape)
        height, width = self.shape[1:]
        if min(sizes) < 1 or min(height, width) < 8 or self.classes < 0 or any((self.width % 4, height % 4, width % 4)):
            raise InvalidInput(
                f"A GAN of latent {self.latent}, {self.classes} classes, widths {self.width} and "
                f"{self.critic_width}, images {self.shape}.",
                expected="positive sizes, a width divisible by 4, image sides of at least 8 pixels and divisible by 4.",
                remedy="change the sizes.",
            )

    def generator(self) -> DcganGenerator:
        """A freshly initialised generator."""
        return DcganGenerator(self)

    def critic(self) -> DcganCritic:
        """A freshly initialised critic."""
        return DcganCritic(self)

    def key(self) -> dict[str, Any]:
        """Plain values, as written to a folder's configuration."""
        return {**asdict(self), "shape": list(self.shape)}

    @staticmethod
    def read(values: dict[str, Any]) -> Dcgan:
        """The opposite of :meth:`key`.

        Raises
        ------
        CorruptFile : the values are not those of such a GAN.
        """
        try:
            channels, height, width = (int(size) for size in values["shape"])
            sizes = {name: int(value) for name, value in values.items() if name != "shape"}
            return Dcgan(shape=(channels, height, width), **sizes)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFile(
                f"The GAN's configuration cannot be read: {error}.",
                expected=f"the fields {', '.join(Dcgan().key())}.",
                remedy="save the GAN again, or download it again.",
            ) from error


class DcganGenerator(nn.Module):
    """Latents [n, latent] and labels [n] to images [n, c, h, w] in [-1, 1]."""

    def __init__(self, form: Dcgan) -> None:
        super().__init__()
        channels, height, width = form.shape
        self.base = (form.width, height // 4, width // 4)
        self.embedding = nn.Embedding(form.classes, form.embedding) if form.classes else None
        joined = form.latent + (form.embedding if form.classes else 0)
        self.first = nn.Linear(joined, self.base[0] * self.base[1] * self.base[2])
        self.stages = nn.Sequential(
            nn.BatchNorm2d(form.width),
            nn.ReLU(),
            nn.ConvTranspose2d(form.width, form.width // 2, 4, stride=2, padding=1),
            nn.BatchNorm2d(form.width // 2),
            nn.ReLU(),
            nn.ConvTranspose2d(form.width // 2, form.width // 4, 4, stride=2, padding=1),
            nn.BatchNorm2d(form.width // 4),
            nn.ReLU(),
            nn.Conv2d(form.width // 4, channels, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images in [-1, 1]."""
        if self.embedding is not None and labels is not None:
            latent = torch.cat([latent, self.embedding(labels)], dim=1)
        return self.stages(self.first(latent).view(-1, *self.base))


class DcganCritic(nn.Module):
    """Images [n, c, h, w] in [-1, 1] and labels [n] to logits [n]: positive where it believes in a training image."""

    def __init__(self, form: Dcgan) -> None:
        super().__init__()
        channels, height, width = form.shape
        w = form.critic_width
        self.features = nn.Sequential(
            nn.Conv2d(channels, w, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(w, 2 * w, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * w, 4 * w, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        size = 4 * w * (height // 8) * (width // 8)
        self.logit = nn.Linear(size, 1)
        self.projection = nn.Embedding(form.classes, size) if form.classes else None
        if self.projection is not None:
            nn.init.normal_(self.projection.weight, std=size**-0.5)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """One logit an image."""
        features = self.features(images)
        logit = self.logit(features).squeeze(1)
        if self.projection is not None and labels is not None:
            logit = logit + (features * self.projection(labels)).sum(1)
        return logit
