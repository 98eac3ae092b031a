"""Polarity sampling: draws of the prior weighted by how much the generator stretches space around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vestige.errors import InvalidInput
from vestige.metrics.arrays import FloatArray
from vestige.randomness import Stream, generator
from vestige.rare.baselines.baseline import Baseline, labels_for, normals
from vestige.rare.draws import Draw
from vestige.rare.scene import References, Scene

_LEAST = 1e-30


@dataclass(frozen=True)
class Polarity(Baseline):
    """Candidates of the prior, drawn with probability in proportion to ``det(J^T J)^(rho / 2)``, J = df(G(z))/dz.

    The density of outputs at G(z) falls with ``det(J^T J)^(1/2)``, so rho = 1 samples the generator's range evenly,
    rho above 0 favours what it makes seldom and rho below 0 its modes. The determinant is the product of the
    ``singular`` largest singular values, as in the paper. J is taken by central differences, so that any generator
    will do; one candidate costs two calls a latent dimension, and the budget decides how many there are. The paper
    draws from some hundred thousand, so that at the cost of a search little is left of it.

    Parameters
    ----------
    rho : the polarity.
    singular : singular values that count; None for all.
    pixels : derivatives of the outputs instead of the features.
    replace : a candidate may be drawn more than once, as in the paper; without it no two samples are alike.
    step : half the width of a difference, in standard deviations of the latent.
    """

    claim: ClassVar[str] = "draws of the prior weighted by the generator's volume change to a power"
    source: ClassVar[str] = "Humayun et al. 2022, arXiv 2203.01993"

    rho: float = 1.0
    singular: int | None = 30
    pixels: bool = False
    replace: bool = False
    step: float = 0.02

    def __post_init__(self) -> None:
        if (self.singular is not None and self.singular < 1) or self.step <= 0:
            raise InvalidInput(
                f"singular={self.singular}, step={self.step:g}.",
                expected="at least one singular value, a positive step.",
                remedy="change the setting.",
            )

    def group(self, scene: Scene, reference: References, members: int, budget: int, seed: int) -> Tensor:
        """Weighted draws from as many candidates as the budget pays for."""
        cost = 2 * scene.generator.latent_size
        rows = budget // cost
        if rows < (1 if self.replace else members):
            raise InvalidInput(
                f"A budget of {budget} calls pays for {rows} candidates of {cost} calls each.",
                expected=f"at least {1 if self.replace else members} candidates a group.",
                remedy="raise the budget, or leave Polarity out of the comparison.",
            )
        candidates = normals(scene, reference, rows, seed, Draw.POLARITY)
        log_weight = self.rho * self.log_volume(scene, candidates, labels_for(reference, rows))
        weight = np.exp(log_weight - log_weight.max())
        random = generator(seed, Stream.RARE, int(reference.rows[0]), Draw.POLARITY + 1)
        # Gumbel's trick is a weighted draw without replacement that does not mind weights of zero.
        if self.replace:
            chosen = random.choice(rows, members, p=weight / weight.sum())
        else:
            chosen = np.argsort(-(log_weight + random.gumbel(size=rows)), kind="stable")[:members]
        return candidates[torch.from_numpy(chosen).to(candidates.device)]

    def log_volume(self, scene: Scene, latents: Tensor, labels: Tensor | None) -> FloatArray:
        """``log det(J^T J)^(1/2)`` [n] over the leading singular values."""
        size, volume = scene.generator.latent_size, np.empty(len(latents))
        axes = self.step * torch.eye(size).to(latents).view(size, *latents.shape[1:])
        for place, latent in enumerate(latents):
            both = torch.cat([latent + axes, latent - axes])
            told = None if labels is None else labels[place].expand(2 * size)
            ahead, behind = np.split(self._answers(scene, both, told), 2)
            values = np.linalg.svd((ahead - behind) / (2 * self.step), compute_uv=False)
            volume[place] = np.log(np.maximum(values[: self.singular], _LEAST)).sum()
        return volume

    def _answers(self, scene: Scene, latents: Tensor, labels: Tensor | None) -> FloatArray:
        if not self.pixels:
            return scene.features(latents, labels)
        return scene.generator.made(latents, labels).flatten(1).double().cpu().numpy()
