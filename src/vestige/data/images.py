"""Sets of images: uint8 at rest, floats in [-1, 1] inside models, rows named by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from vestige.digest import digest_json
from vestige.errors import EmptySet, InvalidInput, ShapeMismatch


def to_float(pixels: npt.NDArray[np.uint8]) -> Float[Tensor, "n c h w"]:
    """uint8 0..255 to float32 in [-1, 1]."""
    return torch.from_numpy(pixels).float() / 127.5 - 1


def to_uint8(images: Float[Tensor, "n c h w"]) -> npt.NDArray[np.uint8]:
    """Float images in [-1, 1] (clipped) to the nearest uint8."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in a fixed order.

    Parameters
    ----------
    pixels : uint8 [n, c, h, w].
    labels : class of each image, int64 [n], or None.
    source : where they came from, for messages and reports.
    names : file name or row number of each image.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64] | None = None
    source: str = "images"
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8:
            raise InvalidInput(
                f"{self.source} holds {self.pixels.dtype} of shape {self.pixels.shape}.",
                expected="uint8 images [n, channels, height, width].",
                remedy="convert them, or load them with vestige.data.load_images.",
            )
        if self.labels is not None and self.labels.shape != (len(self.pixels),):
            raise InvalidInput(
                f"{self.source} has {len(self.pixels)} images and labels of shape {self.labels.shape}.",
                expected="one label an image.",
                remedy="check the labels.",
            )
        if not self.names:
            object.__setattr__(self, "names", tuple(str(i) for i in range(len(self.pixels))))

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Row ids: the first 16 hexadecimal digits of SHA-256 over shape and pixels. Equal images share one."""
        head = str(self.shape).encode()
        return tuple(hashlib.sha256(head + row.tobytes()).hexdigest()[:16] for row in self.pixels)

    @cached_property
    def digest(self) -> str:
        """Digest of all rows and labels, in order."""
        labels = None if self.labels is None else self.labels.tolist()
        return digest_json({"ids": self.ids, "labels": labels})

    @cached_property
    def flat(self) -> npt.NDArray[np.uint8]:
        """Pixels as rows [n, c*h*w]."""
        return np.ascontiguousarray(self.pixels.reshape(len(self.pixels), -1))

    def floats(self, rows: npt.NDArray[np.int64] | slice = slice(None)) -> Float[Tensor, "n c h w"]:
        """Chosen rows in [-1, 1]."""
        return to_float(self.pixels[rows])

    def take(self, rows: npt.NDArray[np.int64] | Sequence[int]) -> ImageSet:
        """The chosen rows, in the given order."""
        index = np.asarray(rows, dtype=np.int64)
        labels = None if self.labels is None else self.labels[index]
        return ImageSet(self.pixels[index], labels, self.source, tuple(self.names[i] for i in index))

    def unique(self) -> tuple[ImageSet, npt.NDArray[np.int64]]:
        """Distinct images in order of first appearance, and how often each stands in the set."""
        first: dict[str, int] = {}
        counts: dict[str, int] = {}
        for row, name in enumerate(self.ids):
            first.setdefault(name, row)
            counts[name] = counts.get(name, 0) + 1
        return self.take(list(first.values())), np.array([counts[name] for name in first], dtype=np.int64)

    def required(self, purpose: str) -> ImageSet:
        """Itself.

        Raises
        ------
        EmptySet : there is no image.
        """
        if len(self) == 0:
            raise EmptySet(f"{self.source} holds no image {purpose}.", expected="at least one.", remedy="check it.")
        return self


def check_fits(images: ImageSet, shape: tuple[int, int, int], model: str) -> None:
    """Raise ShapeMismatch unless the images have the model's channels, height and width."""
    if images.shape == shape:
        return
    kind = {1: "grey", 3: "RGB"}
    have, want = images.shape, shape
    raise ShapeMismatch(
        f"{images.source} holds {kind.get(have[0], f'{have[0]}-channel')} images of {have[2]}x{have[1]} pixels.",
        expected=f"{kind.get(want[0], f'{want[0]}-channel')} images of {want[2]}x{want[1]} pixels, "
        f"as {model} was trained on.",
        remedy="pass the images at the size and colour the model saw in training; vestige never resizes silently.",
    )
