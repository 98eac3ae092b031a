"""A small convolutional judge that names several attributes of one picture, each by a head of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from vestige.data.images import to_float
from vestige.digest import digest_json, digest_tensors
from vestige.errors import CorruptFile, InvalidInput, ShapeMismatch
from vestige.features.extractor import FeatureExtractor, Pixels

WIDTH, SIDE = 96, 32
_NAMES = "attributes"  # the entry of the file's metadata that names what the heads tell apart
_BATCH = 256

Attributes = dict[str, tuple[str, ...]]
"""What each head tells apart, such as ``{"colour": ("red", "green")}``."""


class SceneNetwork(nn.Module):
    """Five convolutions with batch normalization, 96 features, and a linear head an attribute."""

    def __init__(self, attributes: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        shape = ((3, 24, 2), (24, 48, 1), (48, 64, 2), (64, 64, 1), (64, 96, 2))
        layers: list[nn.Module] = []
        for channels, width, stride in shape:
            layers += [
                nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 16, WIDTH), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, len(values)) for name, values in attributes.items()})

    def embed(self, images: Float[Tensor, "n 3 32 32"]) -> Float[Tensor, "n 96"]:
        """Features of images in [-1, 1]."""
        return self.body(images)

    def forward(self, images: Float[Tensor, "n 3 32 32"]) -> dict[str, Tensor]:
        """Logits [n, values] of each attribute, of images in [-1, 1]."""
        features = self.embed(images)
        return {name: head(features) for name, head in self.heads.items()}


class SceneJudge(FeatureExtractor):
    """Reads weights and the names of the attributes from a file of :func:`save_judge`.

    Raises
    ------
    CorruptFile : not such a file.
    """

    def __init__(self, weights: Path) -> None:
        self.attributes, tensors = _read(weights)
        self.network = SceneNetwork(self.attributes)
        try:
            self.network.load_state_dict(tensors)
        except RuntimeError as error:
            raise _corrupt(weights, "weights of another network") from error
        self.network.eval()

    @torch.inference_mode()
    def features(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """Features [n, 96] of pictures uint8 [n, 3, 32, 32].

        Raises
        ------
        ShapeMismatch : pictures of another shape.
        """
        parts = [self.network.embed(images) for images in _batches(pixels)]
        return torch.cat([torch.zeros(0, WIDTH), *parts]).double().numpy()

    @torch.inference_mode()
    def probabilities(self, pixels: Pixels) -> dict[str, npt.NDArray[np.float64]]:
        """Probabilities [n, values] of each attribute, in the order of ``attributes``.

        Raises
        ------
        ShapeMismatch : pictures of another shape.
        """
        logits = [self.network(images) for images in _batches(pixels)]
        return {
            name: torch.cat([torch.zeros(0, len(values)), *(part[name].softmax(1) for part in logits)]).double().numpy()
            for name, values in self.attributes.items()
        }

    def named(self, pixels: Pixels, attribute: str) -> list[str]:
        """The likeliest value of one attribute for each picture.

        Raises
        ------
        InvalidInput : the judge has no such attribute.
        ShapeMismatch : pictures of another shape.
        """
        if attribute not in self.attributes:
            raise InvalidInput(
                f"The judge does not name a picture's '{attribute}'.",
                expected=f"one of {', '.join(self.attributes)}.",
                remedy="choose one of these.",
            )
        values = self.attributes[attribute]
        return [values[place] for place in self.probabilities(pixels)[attribute].argmax(1)]

    @property
    def digest(self) -> str:
        """Digest of weights and attributes; preprocessing is scaling to [-1, 1]."""
        names = {name: list(values) for name, values in self.attributes.items()}
        weights = digest_tensors(self.network.state_dict())
        return digest_json({"features": "scenes", "attributes": names, "weights": weights})

    @property
    def name(self) -> str:
        """What it is."""
        return f"a judge of {', '.join(self.attributes)}, {WIDTH} features"


def save_judge(network: SceneNetwork, attributes: Attributes, path: Path) -> None:
    """Write a safetensors file that :class:`SceneJudge` reads."""
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, path, metadata={_NAMES: json.dumps(attributes)})


def _read(weights: Path) -> tuple[Attributes, dict[str, Tensor]]:
    try:
        with safe_open(weights, framework="pt") as file:
            named = json.loads((file.metadata() or {}).get(_NAMES, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, json.JSONDecodeError) as error:
        raise _corrupt(weights, "unreadable") from error
    if not isinstance(named, dict):
        raise _corrupt(weights, "no names of attributes")
    return {name: tuple(values) for name, values in named.items()}, tensors


def _corrupt(weights: Path, why: str) -> CorruptFile:
    return CorruptFile(
        f"{weights} holds no judge ({why}).",
        expected="a file that vestige.features.scene_judge.save_judge wrote.",
        remedy="train the judge again, or reinstall vestige for its own.",
    )


def _batches(pixels: Pixels) -> list[Tensor]:
    if pixels.shape[1:] != (3, SIDE, SIDE):
        raise ShapeMismatch(
            f"The judge was given pictures of shape {pixels.shape[1:]}.",
            expected=f"colour pictures of {SIDE}x{SIDE} pixels.",
            remedy="use BlockMeans for other pictures.",
        )
    return [to_float(pixels[i : i + _BATCH]) for i in range(0, len(pixels), _BATCH)]
