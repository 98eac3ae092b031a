"""A small convolutional classifier of 28x28 digits, whose weights the zoo ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn

from vestige.digest import digest_json, digest_tensors
from vestige.errors import ShapeMismatch
from vestige.features.extractor import Classifier, Pixels

WIDTH = 64


class DigitNetwork(nn.Module):
    """Three strided convolutions and two linear layers; ``embed`` gives the 64 features before the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, stride=2),
            nn.GELU(),
            nn.Conv2d(16, 32, 3, padding=1, stride=2),
            nn.GELU(),
            nn.Conv2d(32, 64, 3, padding=1, stride=2),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(64 * 16, WIDTH),
            nn.GELU(),
        )
        self.head = nn.Linear(WIDTH, 10)

    def embed(self, images: Float[Tensor, "n 1 28 28"]) -> Float[Tensor, "n 64"]:
        """Features of images in [-1, 1]."""
        return self.body(images)

    def forward(self, images: Float[Tensor, "n 1 28 28"]) -> Float[Tensor, "n 10"]:
        """Class logits of images in [-1, 1]."""
        return self.head(self.embed(images))


class DigitClassifier(Classifier):
    """Reads weights from a safetensors file; ``known_as`` is what reports call it."""

    def __init__(self, weights: Path, known_as: str = "the zoo's digit classifier") -> None:
        self.known_as = known_as
        self.network = DigitNetwork()
        self.network.load_state_dict(load_file(weights))
        self.network.eval()

    @torch.inference_mode()
    def _run(self, pixels: Pixels, probabilities: bool) -> npt.NDArray[np.float64]:
        if pixels.shape[1:] != (1, 28, 28):
            raise ShapeMismatch(
                f"The digit classifier was given images of shape {pixels.shape[1:]}.",
                expected="grey images of 28x28 pixels.",
                remedy="use BlockMeans for other images.",
            )
        parts: list[Tensor] = [torch.zeros(0, 10 if probabilities else WIDTH)]
        for start in range(0, len(pixels), 512):
            images = torch.from_numpy(pixels[start : start + 512]).float() / 127.5 - 1
            parts.append(self.network(images).softmax(1) if probabilities else self.network.embed(images))
        return torch.cat(parts).double().numpy()

    def features(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """Features [n, 64]."""
        return self._run(pixels, probabilities=False)

    def probabilities(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """Class probabilities [n, 10]."""
        return self._run(pixels, probabilities=True)

    @property
    def digest(self) -> str:
        """Digest of the weights; preprocessing is scaling to [-1, 1]."""
        return digest_json({"features": "digits", "weights": digest_tensors(self.network.state_dict())})

    @property
    def name(self) -> str:
        """What it is."""
        return f"{self.known_as}, {WIDTH} features"
