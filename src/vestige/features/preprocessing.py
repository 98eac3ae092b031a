"""What is done to an image before a network sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from vestige.errors import InvalidInput, ShapeMismatch, Unsupported
from vestige.features.extractor import Pixels

_KNOWN = frozenset(
    "do_resize size resample do_center_crop crop_size do_rescale rescale_factor do_normalize image_mean image_std "
    "do_convert_rgb".split()
)
_IDLE = frozenset(
    "image_processor_type feature_extractor_type processor_class _processor_class auto_map data_format return_tensors "
    "input_data_format device disable_grouping _valid_processor_keys".split()
)
"""Settings that say nothing about the numbers a network is given."""


@dataclass(frozen=True)
class Preprocessing:
    """Resizing on 8-bit pixels as Pillow does it, centre crop, scaling to [0, 1], then (x - mean) / std by channel.

    Parameters
    ----------
    size : (height, width) to resize to, whatever the image's shape. shortest_edge : instead, the length of the shorter
        side after resizing, the shape kept. Neither: images keep their size.
    resample : Pillow's filter for resizing.
    crop : (height, width) of the part around the centre.
    rgb : grey images become three equal channels, and other numbers of channels are refused.
    mean, std : one number, or one a channel. The defaults leave [0, 1]; 0.5 and 0.5 give [-1, 1].

    Raises
    ------
    InvalidInput : settings that exclude one another or are out of range.
    """

    size: tuple[int, int] | None = None
    shortest_edge: int | None = None
    resample: Image.Resampling = Image.Resampling.BICUBIC
    crop: tuple[int, int] | None = None
    rgb: bool = False
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        edge = () if self.shortest_edge is None else (self.shortest_edge,)
        lengths = [*(self.size or ()), *(self.crop or ()), *edge]
        both = self.size is not None and self.shortest_edge is not None
        if both or min(lengths, default=1) < 1 or not self.mean or not self.std or not all(s > 0 for s in self.std):
            raise InvalidInput(
                f"{self}.",
                expected="one of size and shortest_edge, lengths of at least 1, a mean, and a std above 0.",
                remedy="correct the settings of the preprocessing.",
            )

    @staticmethod
    def from_config(config: Mapping[str, Any], source: str) -> Preprocessing:
        """Read the ``preprocessor_config.json`` of a transformers image processor.

        Raises
        ------
        Unsupported : it asks for a step that is not one of those above.
        InvalidInput : a value is not of the form that transformers writes.
        """
        foreign = sorted(k for k in config if k not in _KNOWN | _IDLE and config[k] not in (None, False))
        if foreign:
            raise Unsupported(
                f"{source} asks for {', '.join(f'{k} = {config[k]!r}' for k in foreign)}.",
                expected="resizing, centre crop, scaling and normalization only.",
                remedy="wrap the network as ModuleFeatures with preprocessing of your own.",
            )
        try:
            return _from_config(config)
        except (TypeError, ValueError, KeyError) as error:
            raise InvalidInput(
                f"{source} cannot be read ({type(error).__name__}: {error}).",
                expected="the form in which transformers saves an image processor.",
                remedy="save the processor again, or take the file from the model's source.",
            ) from error

    def settings(self) -> dict[str, Any]:
        """Plain values, for digests and records."""
        return {**vars(self), "resample": self.resample.name.lower()}

    def __call__(self, pixels: Pixels) -> Float[Tensor, "n c h w"]:
        """Images uint8 [n, c, h, w] as a network takes them.

        Raises ShapeMismatch for images with another number of channels, or smaller than the crop.
        """
        if self.rgb and pixels.shape[1] == 1:
            pixels = np.repeat(pixels, 3, axis=1)
        channels, wanted = pixels.shape[1], {len(self.mean), len(self.std), *([3] if self.rgb else [])} - {1}
        if wanted - {channels}:
            raise ShapeMismatch(
                f"Images have {channels} channels.",
                expected=" or ".join(map(str, sorted(wanted | ({1} if self.rgb else set())))) + ".",
                remedy="convert them to grey or RGB.",
            )
        images = torch.from_numpy(self._cropped(self._resized(pixels))).float() / 255
        mean, std = (torch.tensor(v, dtype=torch.float32).reshape(-1, 1, 1) for v in (self.mean, self.std))
        return (images - mean) / std

    def _resized(self, pixels: Pixels) -> Pixels:
        height, width = pixels.shape[2:]
        target = self.size
        if self.shortest_edge is not None:
            short = min(height, width)
            target = int(self.shortest_edge * height / short), int(self.shortest_edge * width / short)
        if target is None or target == (height, width):
            return pixels
        if not len(pixels):
            return np.empty((0, pixels.shape[1], *target), np.uint8)
        flat = pixels.reshape(-1, height, width)
        resized = [Image.fromarray(channel).resize((target[1], target[0]), self.resample) for channel in flat]
        return np.stack([np.asarray(image) for image in resized]).reshape(*pixels.shape[:2], *target)

    def _cropped(self, pixels: Pixels) -> Pixels:
        if self.crop is None:
            return np.ascontiguousarray(pixels)
        (height, width), (high, wide) = pixels.shape[2:], self.crop
        if high > height or wide > width:
            raise ShapeMismatch(
                f"Images have {height}x{width} pixels where the centre {high}x{wide} is to be cut out.",
                expected="images at least as large as the crop.",
                remedy="resize them to at least that size first.",
            )
        top, left = (height - high) // 2, (width - wide) // 2
        return np.ascontiguousarray(pixels[:, :, top : top + high, left : left + wide])


def _from_config(config: Mapping[str, Any]) -> Preprocessing:
    size, edge, crop = None, None, None
    if config.get("do_resize"):
        size, edge = _size(config["size"], square=not config.get("do_center_crop"))
    if config.get("do_center_crop"):
        crop = _size(config["crop_size"], square=True)[0]
    rescale = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    normalize = bool(config.get("do_normalize"))
    mean = tuple(float(v) for v in config["image_mean"]) if normalize else (0.0,)
    std = tuple(float(v) for v in config["image_std"]) if normalize else (1.0,)
    # Scaling by another factor than 1/255 is a division of mean and std.
    factor = rescale * 255
    return Preprocessing(
        size=size,
        shortest_edge=edge,
        resample=Image.Resampling(int(config.get("resample", Image.Resampling.BICUBIC))),
        crop=crop,
        rgb=True,
        mean=mean if factor == 1 else tuple(v / factor for v in mean),
        std=std if factor == 1 else tuple(v / factor for v in std),
    )


def _size(value: Any, *, square: bool) -> tuple[tuple[int, int] | None, int | None]:
    """A size, or the length of the shortest edge, as any version of transformers writes it."""
    if isinstance(value, Mapping):
        sides = cast("Mapping[str, Any]", value)
        if set(sides) == {"height", "width"}:
            return (int(sides["height"]), int(sides["width"])), None
        if set(sides) == {"shortest_edge"}:
            return None, int(sides["shortest_edge"])
        raise ValueError(f"a size of {dict(sides)}")
    side = int(value)
    return ((side, side), None) if square else (None, side)
