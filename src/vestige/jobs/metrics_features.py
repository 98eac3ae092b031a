"""From a name or a folder to a feature extractor, and from images to features that are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vestige.data.images import ImageSet
from vestige.errors import NotFound
from vestige.execute import Context
from vestige.features.extractor import FeatureExtractor
from vestige.features.gradients import EdgeOrientations
from vestige.features.pixels import BlockMeans
from vestige.metrics.arrays import Features
from vestige.zoo import zoo_model

ExtractorLike = str | Path | FeatureExtractor

PIXELS, DIGITS, EDGES = "pixels", "digits", "edges"


def open_extractor(features: ExtractorLike) -> FeatureExtractor:
    """The extractor of that name, or of a transformers folder.

    ``pixels`` are block means, ``edges`` histograms of their orientation, ``digits`` the zoo's classifier.

    Raises
    ------
    NotFound : neither. Others : see :func:`vestige.features.transformers.vision_features`.
    """
    if isinstance(features, FeatureExtractor):
        return features
    if str(features) == PIXELS:
        return BlockMeans()
    if str(features) == EDGES:
        return EdgeOrientations()
    if str(features) == DIGITS:
        return zoo_model("digits-ddpm").classifier()
    from vestige.features.transformers import is_vision_folder, vision_features

    if is_vision_folder(Path(features)):
        return vision_features(Path(features))
    raise NotFound(
        f"No features are called '{features}', and no folder of that name holds a config.json.",
        expected=f"{PIXELS}, {EDGES}, {DIGITS}, or the folder of a vision model of transformers.",
        remedy="correct --features.",
    )


@dataclass
class Measured:
    """Features of sets of images, computed once for each set and kept; ``evaluations`` counts images computed now."""

    extractor: FeatureExtractor
    context: Context
    evaluations: int = 0

    def of(self, images: ImageSet, what: str) -> Features:
        """Features [n, d] of the images; float32 where that loses nothing. ``what`` names them beside the bar."""

        def compute(rows: np.ndarray) -> Features:
            self.evaluations += len(rows)
            found = self.extractor.features(images.pixels[rows])
            single = found.astype(np.float32)
            return single if np.array_equal(single, found, equal_nan=True) else found

        column = self.context.store.column("features", {"features": self.extractor.digest, "images": images.digest})
        return column.fill(len(images), compute, progress=self.context.progress, label=f"features of {what}")
