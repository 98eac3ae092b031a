"""Ways to other images that only some generators bring: a diffusion model's samplers, a StyleGAN's truncation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vestige.execute import Context
from vestige.jobs.rare_generator import FEW_STEPS, Opened
from vestige.models.adapters.stylegan2.gan import stylegan2_gan
from vestige.models.adapters.stylegan2.network import Truncation
from vestige.models.denoiser import Denoiser
from vestige.models.generator import DiffusionGenerator, Generator
from vestige.models.sampler import DDPM, Sampler
from vestige.rare.diffusion.boost_and_skip import BoostAndSkip
from vestige.rare.diffusion.self_guided import SelfGuided

Pixels = npt.NDArray[np.uint8]

DIFFUSION_STEPS = 50
PSI = (0.7, 1.3)
"""Styles pulled towards their mean, and pushed away from it."""

_GUIDED = 4
"""Evaluations that a guided step costs, the backward pass counted as two."""


@dataclass(frozen=True, eq=False)
class OwnWay:
    """A sampler that needs no search; ``cost`` of an image in calls of the generator that is searched."""

    name: str
    generator: Generator
    cost: float

    def draw(self, count: int, context: Context) -> Pixels:
        """Images uint8 [count, c, h, w] of the first rows, from the store where they were drawn before."""

        def compute(rows: npt.NDArray[np.int64]) -> Pixels:
            return self.generator.sample(rows, context.seed)

        key = {"generator": self.generator.key(), "seed": context.seed}
        column = context.store.column("generations", key)
        return column.fill(count, compute, shard_rows=64, progress=context.progress, label=self.name)


def own_ways(opened: Opened, context: Context) -> list[OwnWay]:
    """Boost-and-Skip and self-guided sampling beside plain DDPM; truncation of a StyleGAN's styles; none otherwise."""
    if opened.denoiser is not None:
        return _of_diffusion(opened.denoiser, context)
    if opened.styles is None:
        return []
    ways = [(f"StyleTruncation(psi={psi:g})", Truncation(psi)) for psi in PSI]
    size = opened.generator.batch_size
    return [OwnWay(name, stylegan2_gan(opened.styles, way, batch_size=size), 1.0) for name, way in ways]


def _of_diffusion(denoiser: Denoiser, context: Context) -> list[OwnWay]:
    plain, boosted = DDPM(steps=DIFFUSION_STEPS), BoostAndSkip(steps=DIFFUSION_STEPS, skip=1)
    guided = SelfGuided(denoiser, seed=context.seed)
    acts = sum(t >= guided.until for t in plain.times(denoiser.schedule)[:-1])
    ways: list[tuple[str, Denoiser, Sampler, int]] = [
        ("DDPM", denoiser, plain, plain.evaluations()),
        ("BoostAndSkip", denoiser, boosted, boosted.evaluations()),
        ("SelfGuided", guided, plain, plain.evaluations() + (_GUIDED - 1) * acts),
    ]
    return [
        OwnWay(name, DiffusionGenerator(model, sampler, context.batch_size), evaluations / FEW_STEPS)
        for name, model, sampler, evaluations in ways
    ]
