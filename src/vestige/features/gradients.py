"""Orientations of edges: features without weights that know nothing of brightness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.digest import digest_json
from vestige.errors import InvalidInput
from vestige.features.extractor import FeatureExtractor, Pixels

_FLAT = 0.02
"""Strength of edges, in [0, 1], that keeps a flat cell near zero instead of raising its noise."""


@dataclass(frozen=True)
class EdgeOrientations(FeatureExtractor):
    """Histograms of the direction of edges over a grid of cells, square-rooted, in [0, 1].

    The gradient of brightness (the channel that changes most, at each pixel) votes with its strength for the nearest
    two of ``bins`` directions over half a turn; each cell's histogram is divided by its own length. A plain form of
    Dalal and Triggs 2005 (doi 10.1109/CVPR.2005.177). A second opinion where images were chosen in another space.

    Parameters
    ----------
    side : cells a side, at most as many as there are pixels. bins : directions.

    Raises
    ------
    InvalidInput : a setting is below 1 (below 2 bins).
    """

    side: int = 4
    bins: int = 6

    def __post_init__(self) -> None:
        if self.side < 1 or self.bins < 2:
            raise InvalidInput(
                f"side={self.side}, bins={self.bins}.",
                expected="at least one cell and two directions.",
                remedy="change the setting.",
            )

    def features(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """Histograms [n, side * side * bins]. Raises InvalidInput for images with fewer pixels a side than cells."""
        n, _, height, width = pixels.shape
        if min(height, width) < max(self.side, 2):
            raise InvalidInput(
                f"Images of {width}x{height} pixels were given.",
                expected=f"at least {max(self.side, 2)} pixels a side.",
                remedy="use fewer cells, or larger images.",
            )
        images = pixels.astype(np.float64) / 255
        down, right = np.gradient(images, axis=(2, 3))
        strength = np.hypot(down, right)
        strongest = strength.argmax(1)[:, None]
        power = np.take_along_axis(strength, strongest, 1)[:, 0]
        turn = np.arctan2(*(np.take_along_axis(part, strongest, 1)[:, 0] for part in (down, right))) / np.pi
        place = turn % 1 * self.bins
        low = np.floor(place).astype(np.int64)
        share = place - low
        found = np.zeros((n, self.side, self.side, self.bins))
        rows, columns = (np.arange(length) * self.side // length for length in (height, width))
        where = np.broadcast_arrays(np.arange(n)[:, None, None], rows[None, :, None], columns[None, None, :])
        for bin_, weight in ((low, 1 - share), (low + 1, share)):
            np.add.at(found, (*where, bin_ % self.bins), power * weight)
        cell = np.sqrt(np.square(found).sum(3, keepdims=True) + (_FLAT * height * width / self.side**2) ** 2)
        return np.sqrt(found / cell).reshape(n, self.side * self.side * self.bins)

    @property
    def digest(self) -> str:
        """Digest of the settings."""
        return digest_json({"features": "edge-orientations", "side": self.side, "bins": self.bins})

    @property
    def name(self) -> str:
        """Name with cells and directions."""
        return f"edge orientations, {self.bins} in each of {self.side}x{self.side} cells"
