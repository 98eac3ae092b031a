"""Generators: images by row number, the same whatever the batch, worker or resumption."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vestige.data.images import to_uint8
from vestige.digest import digest_array
from vestige.errors import EmptySet
from vestige.models.denoiser import Denoiser, Labels
from vestige.models.sampler import Sampler
from vestige.randomness import Stream, normal

Pixels = npt.NDArray[np.uint8]


class Generator(ABC):
    """Something that makes images."""

    limit: int | None = None
    """How many rows there are; None when it can make more."""

    evaluations: int = 0
    """Network evaluations of its own, one an image; a denoiser counts its own."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""

    @property
    def classes(self) -> int:
        """Number of class labels it knows; 0 for an unconditional or unknown model."""
        return 0

    @property
    def implicit(self) -> bool:
        """Whether it is a model that makes images from latents in one step, as a GAN, and so has no denoiser."""
        return False

    @abstractmethod
    def sample(self, rows: npt.NDArray[np.int64], seed: int) -> Pixels:
        """Images uint8 [len(rows), c, h, w]; row r of a seed is always the same image."""

    @abstractmethod
    def condition_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """The class that each row asks for, if any."""

    @abstractmethod
    def key(self) -> dict[str, Any]:
        """Plain values that determine every row."""


@dataclass(frozen=True)
class DiffusionGenerator(Generator):
    """A denoiser and a sampler. A class-conditional model cycles through its classes by row."""

    denoiser: Denoiser
    sampler: Sampler
    batch_size: int = 128

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the denoiser's images."""
        return self.denoiser.shape

    @property
    def classes(self) -> int:
        """Labels of the denoiser."""
        return self.denoiser.classes

    def condition_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """Row r asks for class ``r mod classes``."""
        return rows % self.denoiser.classes if self.denoiser.classes else None

    def sample(self, rows: npt.NDArray[np.int64], seed: int) -> Pixels:
        """Sample the rows in batches; noise depends on seed and row alone."""
        batches = [self._batch(rows[i : i + self.batch_size], seed) for i in range(0, len(rows), self.batch_size)]
        return np.concatenate(batches) if batches else np.empty((0, *self.shape), np.uint8)

    def _batch(self, rows: npt.NDArray[np.int64], seed: int) -> Pixels:
        device = self.denoiser.device

        def fresh(draw: int) -> torch.Tensor:
            stream = Stream.SAMPLE if draw == 0 else Stream.ANCESTRAL
            return torch.from_numpy(normal(seed, stream, rows, self.shape, draw)).to(device)

        labels = self.condition_of(rows)
        condition: Labels | None = None if labels is None else torch.from_numpy(labels).to(device)
        return to_uint8(self.sampler.sample(self.denoiser, fresh(0), condition, fresh))

    def key(self) -> dict[str, Any]:
        """Denoiser digest and sampler settings."""
        return {"denoiser": self.denoiser.digest, **self.sampler.key()}


@dataclass(frozen=True, eq=False)
class SampleBank(Generator):
    """Images that somebody else generated: a black box of which only samples are known.

    Raises
    ------
    EmptySet : there is no image.
    """

    pixels: Pixels

    def __post_init__(self) -> None:
        if len(self.pixels) == 0:
            raise EmptySet("The set of samples is empty.", expected="generated images.", remedy="check the path.")
        object.__setattr__(self, "limit", len(self.pixels))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the stored images."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def condition_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
        """Unknown for a black box."""
        return None

    def sample(self, rows: npt.NDArray[np.int64], seed: int) -> Pixels:
        """The stored rows; the seed plays no part."""
        return self.pixels[rows]

    def key(self) -> dict[str, Any]:
        """Digest of the images."""
        return {"samples": digest_array(self.pixels)}
