"""The contract of a baseline, and how those that draw many keep a few."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vestige.metrics.arrays import FloatArray, count
from vestige.models.latent import Calls
from vestige.randomness import Stream, generator
from vestige.rare.found import Found
from vestige.rare.scene import References, Scene
from vestige.rare.settings import named

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Baseline(ABC):
    """One way to samples. Fields are its settings; a subclass is final."""

    claim: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def group(self, scene: Scene, reference: References, members: int, budget: int, seed: int) -> Tensor:
        """Latents [at most ``members``, ...] of one group; ``reference`` holds that one alone.

        ``budget`` bounds the generator calls, in forward passes. Randomness belongs to the reference's row.
        """

    def draw(self, scene: Scene, references: References, members: int, budget: int, seed: int = 0) -> Found:
        """A group of ``members`` samples for every reference.

        Parameters
        ----------
        budget : most generator calls a group, in forward passes of one image; to compare with a search at equal cost,
            its ``calls.forward_equivalents`` over its groups.

        Raises
        ------
        InvalidInput : a group needs more calls than the budget allows.
        """
        members, budget = count(members, "members", 1), count(budget, "budget", members)
        before = scene.generator.calls
        shape = (len(references), members)
        latents = torch.zeros(*shape, *scene.generator.latent_shape, device=scene.generator.device)
        present = np.zeros(shape, np.bool_)
        for r in range(len(references)):
            made = self.group(scene, references.some(slice(r, r + 1)), members, budget, seed)
            latents[r, : len(made)] = made
            present[r, : len(made)] = True
        spent = scene.generator.calls.since(before)
        return Found(self.name, latents, present, Calls(max(spent.images, int(present.sum())), spent.gradients))

    @property
    def name(self) -> str:
        """Class name with the fields that differ from their defaults."""
        return named(self)


def normals(scene: Scene, reference: References, rows: int, seed: int, draw: int) -> Tensor:
    """Standard normal latents [rows, ...] of the reference's own stream; more rows leave the first as they are."""
    random = generator(seed, Stream.RARE, int(reference.rows[0]), draw)
    noise = random.standard_normal((rows, *scene.generator.latent_shape), np.float32)
    return torch.from_numpy(noise).to(scene.generator.device)


def labels_for(reference: References, rows: int) -> Tensor | None:
    """The reference's label for every one of so many latents."""
    return None if reference.labels is None else reference.labels.expand(rows)


def spread_out(features: FloatArray, first: int, members: int) -> Integers:
    """Rows of ``features`` [n, d], farthest first from those taken before, starting with row ``first``."""
    taken = [first]
    gap = np.square(features - features[first]).sum(1)
    while len(taken) < min(members, len(features)):
        gap[taken] = -1
        taken.append(int(gap.argmax()))
        gap = np.minimum(gap, np.square(features - features[taken[-1]]).sum(1))
    return np.array(taken, np.int64)
