"""Evolution of latents, for generators that can only be called."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vestige.dependencies import need
from vestige.errors import InvalidInput
from vestige.metrics.arrays import FloatArray
from vestige.randomness import Stream, generator
from vestige.rare.baselines.baseline import Baseline, labels_for
from vestige.rare.draws import Draw
from vestige.rare.objective import Edges, Objective, RareSearch, View
from vestige.rare.scene import References, Scene

_REFUSED = 1e6
"""Value of a sample that may not be where it is, to which its violation is added: worse than any that may."""


@dataclass(frozen=True)
class CmaEs(Baseline):
    """One run of covariance matrix adaptation after another, each for one member of a group given those before it.

    A candidate's value is the rank that the objective gives it beside the members found so far; one outside the real
    manifold or d* is worse than every other, by how far it is outside. Each member gets an equal part of the budget,
    and the best candidate that was accepted; without one it is missing.

    Parameters
    ----------
    objective : whose rank is lowered; its starts, steps and rate play no part.
    start : deviation of the first generation around the reference's latent; 1 around 0 without a reference.
    population : candidates a generation; None for the library's 4 + 3 log(latent size).
    """

    claim: ClassVar[str] = "evolves latents without a gradient, one member of a group after another"
    source: ClassVar[str] = "Hansen and Ostermeier 2001, doi 10.1162/106365601750190398; library cma"

    objective: Objective = field(default_factory=RareSearch)
    start: float = 0.3
    population: int | None = None

    def __post_init__(self) -> None:
        if self.start <= 0 or (self.population is not None and self.population < 2):
            raise InvalidInput(
                f"start={self.start:g}, population={self.population}.",
                expected="a positive start, a population of at least 2.",
                remedy="change the setting.",
            )

    def group(self, scene: Scene, reference: References, members: int, budget: int, seed: int) -> Tensor:
        """The best accepted candidate of each run. Raises MissingExtra without cma."""
        cma: Any = need("evolution", "cma")
        kept: list[Tensor] = []
        known = np.empty((0, scene.manifold.rows.shape[1]))
        for member in range(members):
            latent, features = self._run(cma, scene, reference, known, budget // members, member, seed)
            if latent is not None:
                kept.append(latent)
                known = np.concatenate([known, features])
        return torch.stack(kept) if kept else torch.zeros(0, *scene.generator.latent_shape)

    def _run(
        self, cma: Any, scene: Scene, reference: References, known: FloatArray, budget: int, member: int, seed: int
    ) -> tuple[Tensor | None, FloatArray]:
        size, shape, device = scene.generator.latent_size, scene.generator.latent_shape, scene.generator.device
        random = generator(seed, Stream.RARE, int(reference.rows[0]), Draw.EVOLUTION + member)

        def noise(rows: int, columns: int) -> npt.NDArray[np.float64]:
            return random.standard_normal((rows, columns))

        options: dict[str, Any] = {"randn": noise, "seed": np.nan, "verbose": -9, "verb_log": 0, "signals_filename": ""}
        if self.population is not None:
            options["popsize"] = self.population
        centre = reference.latents[0].flatten().double().cpu().numpy()
        evolution = cma.CMAEvolutionStrategy(centre, 1.0 if reference.free else self.start, options)
        best, least, features_of_best = None, _REFUSED, known[:0]
        for _ in range(budget // evolution.popsize):
            asked = evolution.ask()
            latents = torch.from_numpy(np.stack(asked)).to(device, torch.float32).view(-1, *shape)
            latents = self.objective.confined(latents)
            features = scene.features(latents, labels_for(reference, len(latents)))
            values = self._values(scene, reference, features, known)
            lowest = int(values.argmin())
            if values[lowest] < least:
                best, least, features_of_best = latents[lowest], values[lowest], features[lowest : lowest + 1]
            evolution.tell([z.reshape(size) for z in latents.flatten(1).double().cpu().numpy()], values.tolist())
            if evolution.stop():
                break
        return best, features_of_best

    @torch.no_grad()
    def _values(self, scene: Scene, reference: References, features: FloatArray, known: FloatArray) -> FloatArray:
        """Value of each candidate [n, d] as the last of a group with the known members."""
        n = len(features)
        beside = np.concatenate([np.broadcast_to(known, (n, *known.shape)), features[:, None]], axis=1)
        x = torch.from_numpy(beside)
        labels = labels_for(reference, n)
        told = None if labels is None else labels.cpu()
        ratio = torch.from_numpy(scene.manifold.locate(features).ratio)[:, None]
        distance = (x[:, -1:] - torch.from_numpy(reference.features)).norm(dim=2)
        log_density = scene.density.log_prob(torch.from_numpy(features), told)[:, None]
        reach, unit = torch.tensor([[reference.reach[0]]]), torch.tensor([[reference.unit[0]]])
        # Only the last of each group is asked for: the others may stand with its numbers.
        log_density, distance, ratio = (v.expand(n, x.shape[1]) for v in (log_density, distance, ratio))
        edges = Edges(ratio, distance, reach, x, x - torch.from_numpy(reference.features))
        view = View(x, log_density, edges, unit)
        rank = self.objective.terms(view, scene.density).rank[:, -1]
        beyond = edges.beyond.amax(0)[:, -1]
        return torch.where(edges.accepted[:, -1], rank, _REFUSED + beyond).double().numpy()
