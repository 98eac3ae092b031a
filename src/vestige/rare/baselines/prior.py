"""Samples of the prior, as the generator is meant to be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from vestige.rare.baselines.baseline import Baseline, normals
from vestige.rare.draws import Draw
from vestige.rare.scene import References, Scene


@dataclass(frozen=True)
class Random(Baseline):
    """Latents of the prior; a reference decides only the class."""

    claim: ClassVar[str] = "what the generator makes when nothing is asked of it"
    source: ClassVar[str] = "the generator's prior"

    def group(self, scene: Scene, reference: References, members: int, budget: int, seed: int) -> Tensor:
        """As many as are wanted."""
        return normals(scene, reference, members, seed, Draw.PRIOR)
