"""Block means of pixels: features for images that no shipped network knows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import adaptive_avg_pool2d

from vestige.digest import digest_json
from vestige.features.extractor import FeatureExtractor, Pixels


@dataclass(frozen=True)
class BlockMeans(FeatureExtractor):
    """Each channel averaged over a ``side`` x ``side`` grid, in [0, 1]: c * side^2 features."""

    side: int = 6

    def features(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """Means [n, c * side * side]."""
        means = adaptive_avg_pool2d(torch.from_numpy(pixels).float() / 255, self.side)
        return means.flatten(1).double().numpy()

    @property
    def digest(self) -> str:
        """Digest of the grid."""
        return digest_json({"features": "block-means", "side": self.side})

    @property
    def name(self) -> str:
        """Name with the grid's side."""
        return f"means of {self.side}x{self.side} pixel blocks"
