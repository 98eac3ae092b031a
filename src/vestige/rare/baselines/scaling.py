"""Latents made longer or shorter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from vestige.errors import InvalidInput
from vestige.rare.baselines.baseline import Baseline, normals
from vestige.rare.draws import Draw
from vestige.rare.scene import References, Scene


@dataclass(frozen=True)
class LatentScaling(Baseline):
    """``z = factor eps``: above 1 towards what the prior makes seldom, below 1 towards its middle.

    In many dimensions no latent of the prior has such a norm, so that the generator is asked for what it was never
    trained on.
    """

    claim: ClassVar[str] = "latents of the prior times a factor"
    source: ClassVar[str] = "folklore of GAN sampling"

    factor: float = 1.5

    def __post_init__(self) -> None:
        if self.factor <= 0:
            raise InvalidInput(f"factor={self.factor:g}.", expected="a positive factor.", remedy="change the setting.")

    def group(self, scene: Scene, reference: References, members: int, budget: int, seed: int) -> Tensor:
        """As many as are wanted."""
        return self.factor * normals(scene, reference, members, seed, Draw.PRIOR)
