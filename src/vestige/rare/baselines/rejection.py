"""Rejection: draw many, keep those that are wanted. What every search has to beat at the same number of calls."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vestige.errors import InvalidInput
from vestige.rare.baselines.baseline import Baseline, Integers, labels_for, normals, spread_out
from vestige.rare.draws import Draw
from vestige.rare.scene import References, Scene


class Selection(Enum):
    """Which of the accepted draws are kept: the rarest, or of those rare enough the ones farthest apart."""

    RAREST = "rarest"
    SPREAD = "spread"


@dataclass(frozen=True)
class Rejection(Baseline):
    """Draws inside the real manifold and within d*, of which the rarest, or the rare and most different, are kept.

    Without a reference the proposals are draws of the prior. Near one they are ``sqrt(1 - s^2) z* + s eps``, which has
    the norm of the prior, with s taken from ``scales`` in turn. The whole budget is spent on proposals. Fewer samples
    than asked for come back where fewer are accepted.

    Parameters
    ----------
    selection : how to choose among the accepted.
    rarity : share of real rows that a sample is to be rarer than where they are chosen for being apart; where fewer
        are as rare, the rarest are kept.
    scales : how far proposals leave the reference, each within (0, 1].
    prior : draw from the prior even where there is a reference.
    """

    claim: ClassVar[str] = "draws at the cost of the search; keeps the rarest of those that lie where they may"
    source: ClassVar[str] = "von Neumann 1951"

    selection: Selection = Selection.SPREAD
    rarity: float = 0.98
    scales: tuple[float, ...] = (0.1, 0.2, 0.3, 0.45, 0.65)
    prior: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.rarity <= 1 or not self.scales or min(self.scales) <= 0 or max(self.scales) > 1:
            raise InvalidInput(
                f"rarity={self.rarity:g}, scales={self.scales}.",
                expected="a rarity within [0, 1], at least one scale, all within (0, 1].",
                remedy="change the setting.",
            )

    def group(self, scene: Scene, reference: References, members: int, budget: int, seed: int) -> Tensor:
        """The chosen ones."""
        latents = self.proposals(scene, reference, budget, seed)
        told = labels_for(reference, budget)
        features = scene.features(latents, told)
        gap = np.linalg.norm(features - reference.features[0], axis=1)
        allowed = np.flatnonzero(scene.manifold.locate(features).inside & (gap <= reference.reach[0]))
        if not len(allowed):
            return latents[:0]
        with torch.no_grad():
            labels = None if told is None else told[torch.from_numpy(allowed).to(told.device)].cpu()
            log_density = scene.density.log_prob(torch.from_numpy(features[allowed]), labels).double().numpy()
        order = np.argsort(log_density, kind="stable")
        chosen = allowed[self._chosen(features[allowed[order]], log_density[order], scene, members, order)]
        return latents[torch.from_numpy(chosen).to(latents.device)]

    def proposals(self, scene: Scene, reference: References, rows: int, seed: int) -> Tensor:
        """Latents [rows, ...] to try; more rows leave the first as they are."""
        noise = normals(scene, reference, rows, seed, Draw.REJECTION)
        if self.prior or reference.free:
            return noise
        scale = torch.tensor([self.scales[i % len(self.scales)] for i in range(rows)]).to(noise)
        scale = scale.view(-1, *[1] * (noise.ndim - 1))
        return (1 - scale.square()).sqrt() * reference.latents.to(noise) + scale * noise

    def _chosen(
        self, features: np.ndarray, log_density: np.ndarray, scene: Scene, members: int, order: Integers
    ) -> Integers:
        """Places among the accepted, given in the order of rarity."""
        if self.selection is Selection.RAREST:
            return order[:members]
        enough = int((log_density <= scene.density.quantile(1 - self.rarity)).sum())
        if enough < members:
            return order[:members]
        return order[:enough][spread_out(features[:enough], 0, members)]
