"""The truncation trick and its inverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vestige.errors import InvalidInput
from vestige.rare.baselines.baseline import Baseline, normals
from vestige.rare.draws import Draw
from vestige.rare.scene import References, Scene


@dataclass(frozen=True)
class Truncation(Baseline):
    """Every number of the latent is a normal one given that it lies within the threshold, or beyond it.

    Within, this is the trick of the paper, for which it draws again what lies beyond; here the same latent of the prior
    is carried over by its quantiles, so that one draw is enough. Beyond, it is the opposite.

    Parameters
    ----------
    threshold : in standard deviations.
    inverse : beyond the threshold instead of within.
    """

    claim: ClassVar[str] = "latents without the tails of the normal distribution, or (inverse) of its tails alone"
    source: ClassVar[str] = "Brock et al. 2019, arXiv 1809.11096, section 3.1"

    threshold: float = 1.0
    inverse: bool = False

    def __post_init__(self) -> None:
        if self.threshold <= 0:
            raise InvalidInput(f"threshold={self.threshold:g}.", expected="above 0.", remedy="change the setting.")

    def group(self, scene: Scene, reference: References, members: int, budget: int, seed: int) -> Tensor:
        """As many as are wanted."""
        plain = normals(scene, reference, members, seed, Draw.PRIOR).double()
        # P(|z| > t), and how far into its own tail each number lies: both keep their digits far out.
        beyond = 2 * torch.special.ndtr(torch.tensor(-self.threshold, dtype=torch.float64, device=plain.device))
        tail = 2 * torch.special.ndtr(-plain.abs())
        moved = beyond * tail if self.inverse else beyond + (1 - beyond) * tail
        return (-torch.special.ndtri(moved / 2) * plain.sign()).float()
