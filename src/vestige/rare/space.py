"""Feature spaces that can be differentiated: where rarity, distance and the real data live during a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from vestige.data.images import to_float
from vestige.digest import digest_json
from vestige.errors import BadWeights, InvalidInput
from vestige.features.digit_classifier import DigitClassifier
from vestige.features.module import ModuleFeatures
from vestige.features.pixels import BlockMeans
from vestige.features.preprocessing import Preprocessing
from vestige.models.network import device_of, settle, still_settled, weights_digest

Features = npt.NDArray[np.float64]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Space:
    """A map from outputs to vectors that torch can differentiate.

    Parameters
    ----------
    embed : called with a generator's outputs, images in [-1, 1] [n, c, h, w]; answers [n, d]. A module is put into
        evaluation mode.
    name : a few words for reports.
    digest : identifies weights and preprocessing; features of different digests are not comparable.
    batch_size : rows a call of :meth:`of`.

    Raises
    ------
    BadWeights, InvalidInput : a module has weights that are not finite, or stays in training mode.
    """

    embed: Callable[[Tensor], Tensor]
    name: str
    digest: str
    batch_size: int = 256

    def __post_init__(self) -> None:
        settle(self.embed, "feature network")

    def __call__(self, outputs: Tensor) -> Tensor:
        """Features [n, d] of outputs, differentiable.

        Raises
        ------
        InvalidInput : the features are no matrix. BadWeights : one is NaN or infinite.
        """
        still_settled(self.embed, "feature network")
        features = self.embed(outputs)
        if features.ndim != 2 or len(features) != len(outputs):
            raise InvalidInput(
                f"The features of {len(outputs)} outputs have shape {tuple(features.shape)}.",
                expected="[n, d], one vector an output.",
                remedy="flatten or pool inside the feature network.",
            )
        if not bool(torch.isfinite(features).all()):
            raise BadWeights(
                "A feature is NaN or infinite.",
                expected="finite features.",
                remedy="check the feature network and the range of pixels that it expects.",
            )
        return features

    @torch.no_grad()
    def of(self, pixels: Pixels | Features) -> Features:
        """Features float64 [n, d] of images uint8 [n, c, h, w], or of plain vectors float [n, k]."""
        device, parts = device_of(self.embed), list[Tensor]()
        for start in range(0, len(pixels), self.batch_size):
            part = pixels[start : start + self.batch_size]
            outputs = to_float(part.astype(np.uint8)) if part.dtype == np.uint8 else torch.from_numpy(part)
            parts.append(self(outputs.to(device)).double().cpu())
        return torch.cat(parts).numpy() if parts else np.empty((0, 0))


def module_space(module: nn.Module, name: str, *, identity: str) -> Space:
    """The answers of a module to images in [-1, 1].

    ``identity`` names its architecture and preprocessing; its weights are part of the digest.
    """
    return Space(module, name, digest_json({"features": identity, "weights": weights_digest(module)}))


def digit_space(classifier: DigitClassifier) -> Space:
    """The 64 features of the zoo's digit classifier."""
    return Space(classifier.network.embed, classifier.name, classifier.digest)


def block_space(blocks: BlockMeans | None = None) -> Space:
    """Means of pixel blocks, as :class:`~vestige.features.pixels.BlockMeans` gives them."""
    blocks = blocks or BlockMeans()

    def embed(outputs: Tensor) -> Tensor:
        return adaptive_avg_pool2d((outputs + 1) / 2, blocks.side).flatten(1)

    return Space(embed, blocks.name, blocks.digest)


def vision_space(vision: ModuleFeatures) -> Space:
    """A network with its preprocessing, made differentiable: images are resized as floats, with antialiasing.

    Pillow, which :class:`~vestige.features.module.ModuleFeatures` resizes with, rounds to 8 bits in between, so these
    features differ a little from those and have a digest of their own.
    """
    prepare, module = vision.preprocessing, vision.module
    mean, std = (torch.tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (prepare.mean, prepare.std))

    def embed(outputs: Tensor) -> Tensor:
        images = (outputs.float() + 1) / 2
        if prepare.rgb and images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        images = _cropped(_resized(images, prepare), prepare)
        return module((images - mean.to(images)) / std.to(images))

    module.requires_grad_(False)
    return Space(embed, vision.name, digest_json({"features": "differentiable", "of": vision.digest}), batch_size=32)


def _resized(images: Tensor, prepare: Preprocessing) -> Tensor:
    height, width = images.shape[2:]
    target = prepare.size
    if prepare.shortest_edge is not None:
        target = tuple(int(prepare.shortest_edge * side / min(height, width)) for side in (height, width))
    if target is None or tuple(target) == (height, width):
        return images
    smooth = prepare.resample in (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
    mode = "bicubic" if smooth else "bilinear"
    return interpolate(images, size=list(target), mode=mode, antialias=True).clamp(0, 1)


def _cropped(images: Tensor, prepare: Preprocessing) -> Tensor:
    if prepare.crop is None:
        return images
    (height, width), (high, wide) = images.shape[2:], prepare.crop
    top, left = (height - high) // 2, (width - wide) // 2
    return images[:, :, top : top + high, left : left + wide]


def plain_space() -> Space:
    """The outputs themselves, flattened: for rows of a table, and for closed forms."""
    return Space(_flat, "the outputs themselves", digest_json({"features": "outputs"}))


def _flat(outputs: Tensor) -> Tensor:
    return outputs.flatten(1)
