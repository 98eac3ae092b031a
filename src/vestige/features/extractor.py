"""The contract of a feature extractor."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


class FeatureExtractor(ABC):
    """Maps images to vectors."""

    @abstractmethod
    def features(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """Features [n, d] of images uint8 [n, c, h, w]."""

    @property
    @abstractmethod
    def digest(self) -> str:
        """Identifies weights and preprocessing; features of different digests are not comparable."""

    @property
    @abstractmethod
    def name(self) -> str:
        """A few words for reports."""


class Classifier(FeatureExtractor):
    """A feature extractor that also names classes."""

    @abstractmethod
    def probabilities(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """Class probabilities [n, classes] of images uint8 [n, c, h, w]."""
